"""What Python puts into a page, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from tests.needs import program

import regard as rg
from regard.viewer import frame_html, repr_html, save_html, to_html
from regard.viewer.chunks import Chunks, halves
from regard.viewer.page import script_json, static
from regard.viewer.subject import subject_of

WEB = Path(__file__).parents[2] / "web"


def seen(length: int = 6, heads: int = 2, **keywords: object) -> rg.Inspection:
    q = torch.randn(1, heads, length, 8)
    return rg.inspect(q, q, q, **keywords)  # type: ignore[arg-type]


def test_a_page_names_no_address_outside() -> None:
    html = to_html(seen(), tokens=list("abcdef"))
    outside = [word for word in html.replace('"', " ").replace("'", " ").split() if "://" in word]
    assert [word for word in outside if "www.w3.org/2000/svg" not in word] == []
    assert " src=" not in html
    assert "default-src 'none'" in html


def test_json_is_inert_inside_a_script() -> None:
    text = script_json(["</script>", "<!--", "&", "\u2028", "\x00", "\ud83d"])
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text)[0] == "</script>"


def test_the_file_is_utf_8_and_returned(tmp_path: Path) -> None:
    path = save_html(seen(), tmp_path / "a.html", title="注意力")
    assert "<title>注意力 · regard</title>" in path.read_text("utf-8")


def test_a_frame_is_sandboxed_and_quoted() -> None:
    frame = frame_html('<p title="a">&</p>')
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert "allow-same-origin" not in frame
    assert "&lt;p title=&quot;a&quot;&gt;&amp;&lt;/p&gt;" in frame


def test_a_record_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    layer = rg.nn.MultiHeadAttention(16, 16, 32, 0.0, num_heads=4)
    with rg.record(layer) as record:
        assert repr_html(record).startswith("<p>nothing was recorded")
        layer(torch.randn(1, 10, 16))
    assert record._repr_html_().startswith("<iframe sandbox=")
    text = record.save_html(tmp_path / "a.html").read_text("utf-8")
    assert text.count('text/plain" data-chunk') == 9  # q and k of 4 heads, and a mask


def test_the_grid_takes_the_table_of_head_scores() -> None:
    model = rg.nn.MultiHeadAttention(8, 8, context_length=16, dropout=0.0, num_heads=2)
    with rg.record(model) as rec:
        model(torch.randn(1, 9, 8))
    table = rec.head_scores(["entropy", "previous_token"])
    assert subject_of(rec, scores=table).scores == table.grids()


def test_equal_arrays_are_kept_once() -> None:
    chunks = Chunks(compress=True)
    first, second = (chunks.add(torch.arange(100, dtype=torch.int32).numpy()) for _ in range(2))
    assert first == second
    assert len(chunks.texts) == 1


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_half_floats_keep_eleven_bits_at_any_size(size: float) -> None:
    x = torch.randn(1000) * size
    values, scale = halves(x)
    large = x.abs() > x.abs().max() * 1e-4
    back = torch.from_numpy(values).float() * scale
    assert ((back - x).abs() <= x.abs() * 2**-11)[large].all()


def test_the_stated_deviation_is_what_half_floats_cost() -> None:
    inspection = seen(40)
    data = to_html(inspection).split('class="regard-data">')[1].split("</script>")[0]
    stated = json.loads(data)["records"][0]["deviation"]
    q = inspection.weights._call.q.half().float()
    rounded = rg.inspect(q, q, q).weights.dense()
    worst = (rounded - inspection.weights.dense()).abs().max().item()
    assert 0 < stated <= worst * 1.01
    assert stated >= worst / 20


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: to_html(seen(), tokens=["a"]), rg.ShapeError, "one string a key: got 1 for 6"),
        (lambda: to_html(seen(), tokens="abcdef"), rg.KindError, "list of strings"),
        (lambda: to_html(seen(), query_tokens=["a"]), rg.ShapeError, "one string a query"),
        (lambda: to_html(torch.zeros(2, 2)), rg.KindError, "made of a record"),
        (lambda: to_html([]), rg.ArgumentError, "at least one layer"),
        (lambda: to_html(seen(), entry=1), rg.ArgumentError, "entry is a batch entry, 0 … 0"),
        (lambda: to_html(seen(), scores={"x": [[1.0]]}), rg.ShapeError, "one number for each of the heads"),
        (lambda: to_html(seen(500), max_bytes=1000), rg.ArgumentError, r"max_bytes=\d+"),
    ],
)
def test_refusals(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


def test_the_committed_page_is_built_from_the_present_sources() -> None:
    digest = hashlib.sha256()
    for path in sorted((WEB / "src").iterdir()):
        digest.update(path.read_bytes())
    assert static("viewer.js").startswith(f"/* built from web/src {digest.hexdigest()[:16]} */"), (
        "npm run build in web/"
    )


@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="'npm ci' in web/ installs what builds the page")
def test_a_rebuild_gives_the_committed_files() -> None:
    done = subprocess.run([program("npm"), "run", "--silent", "check"], cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

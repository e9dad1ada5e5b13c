"""The measurements of `regard bench viewer` and `regard bench recording`, on small things."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.adapters import huggingface
from regard.bench import recording, rivals
from regard.bench import viewer as bench
from regard.bench.peers import PEERS


def test_a_page_and_a_served_head_are_measured(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_KEYS", ["+", "ArrowUp", "-"])
    page = bench._opened(browser, tmp_path, 2, 64, 2, compressed=True)
    looked = bench._looked(browser, tmp_path, 1500)
    assert page.bytes == (tmp_path / "page.html").stat().st_size
    assert len(page.open) == 2
    assert all(0 < seconds < 30 for seconds in page.open)
    assert len(looked.steps) == 3
    assert 0 < min(looked.steps) <= max(looked.steps) < 30
    assert 0 < looked.overview < 30
    viewed = bench.Viewed("0", (page,), looked)
    assert "2 × 12 heads, 64 tokens, compressed" in str(viewed)
    assert str(PEERS[0]) in str(viewed)
    assert viewed.record()["served"]["steps"] == looked.steps  # type: ignore[index]  # a dict of dicts


def test_a_step_lasts_until_its_last_tile_is_drawn(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes 0.3 s for a tile is seen to take that long."""
    import time

    from regard.viewer.server import Answers

    answer = Answers.tile

    def slow(*given: Any) -> Any:
        time.sleep(0.3)
        return answer(*given)

    monkeypatch.setattr(Answers, "tile", slow)
    monkeypatch.setattr(bench, "_KEYS", ["+", "+"])
    assert max(bench._looked(browser, tmp_path, 1500).steps) > 0.3


def test_recording_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With memory that is told: what a process really holds is noise at this size."""
    told = {"peaks": [100, 700], "held": [0, 50, 450]}
    monkeypatch.setattr(recording, "peak_extra", lambda function: (function(), told["peaks"].pop(0))[1])
    monkeypatch.setattr(recording, "settled", lambda: told["held"].pop(0))
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    huggingface.use(model)
    found = recording.measured(model, torch.randint(0, 64, (1, 2048)), 2)
    assert found.layers == 2
    assert found.kept == 2 * (4 + 2) * 2048 * 16 * 4
    assert (found.peak, found.grown) == (600, 400)
    assert len(found.pair.ours) == len(found.pair.theirs) == 2
    assert "2,048 tokens" in str(found)
    assert found.record()["ratio"] == found.pair.ratio


def test_another_viewer_is_opened_in_the_same_browser(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drawn by a script from the network, which comes from a folder; nothing else from there is let through."""
    given: list[torch.Tensor] = []

    def page(weights: torch.Tensor, words: list[str]) -> str:
        given.append(weights)
        scripts = "".join(f"<script src='https://not.here/1.0/{name}.min.js'></script>" for name in ("draw", "other"))
        return f"<p>{' '.join(words)}</p>{scripts}"

    (tmp_path / "draw.min.js").write_text("document.body.append(document.createElement('canvas'))", "utf-8")
    monkeypatch.setenv(rivals.SCRIPTS, str(tmp_path))
    found = rivals.Rival("torch", "Another", 16, 3, page, "canvas").run(browser, tmp_path)
    [weights] = given
    assert weights.shape == (1, 3, 16, 16)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 3, 16))
    assert not weights.triu(1).any()
    assert (found.tokens, found.layers, found.heads) == (16, 1, 3)
    assert found.tool == f"Another {version('torch')}"
    assert found.seconds is not None
    assert str(found) in str(bench.Viewed("1", (), bench.Looked(1, 1, 1.0, (1.0,), 1, 1.0), (found,)))


def test_viewers_that_are_not_installed_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "RIVALS", [rivals.Rival("not_a_package", "x", 1, 1, lambda *_: "", "p")])
    assert rivals.rerun(None, tmp_path) == ()

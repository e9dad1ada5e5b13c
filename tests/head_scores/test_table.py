"""The table of head scores: averages, errors, order, CSV and pandas."""

from __future__ import annotations

import csv
import io
import math

import pytest
import torch

import regard as rg
from regard import head_scores as hs


@pytest.fixture(scope="module")
def rec() -> rg.Record:
    torch.manual_seed(0)
    layer = rg.nn.MultiHeadAttention(8, 8, 32, 0.0, num_heads=4)
    with rg.record(layer) as rec:
        layer(torch.randn(3, 10, 8))
        layer(torch.randn(2, 7, 8))
    return rec


def test_scores_are_averaged_over_prompts_with_their_standard_error(rec: rg.Record) -> None:
    table = rec.head_scores(["entropy", hs.Offset(2)])
    assert table.names == ("entropy", "offset_2")
    assert (len(table), table.prompts) == (4, 5)
    rows = torch.cat([run.layers[0].weights.entropy().mean(-1) for run in rec.runs]).double()
    for n in range(4):
        assert table.mean["entropy"][n] == pytest.approx(rows[:, n].mean().item(), rel=1e-5)
        assert table.error["entropy"][n] == pytest.approx(rows[:, n].std().item() / math.sqrt(5), rel=1e-4)


def test_one_prompt_has_no_error() -> None:
    layer = rg.nn.CausalAttention(4, 4, 8, 0.0)
    with rg.record(layer) as rec:
        layer(torch.randn(1, 5, 4))
    assert math.isnan(rec.head_scores("entropy").error["entropy"][0])


def test_what_a_record_lacks_is_left_out_unless_asked_for(rec: rg.Record) -> None:
    table = rec.head_scores()
    assert set(table.missing) == {"learned_sink_share", "induction", "prefix_matching", "duplicate_token"}
    assert "value_weighted" in table.names
    with pytest.raises(rg.ArgumentError, match="induction: the tokens' ids are not known"):
        rec.head_scores(["induction"])
    with pytest.raises(rg.ArgumentError, match=r"head scores are sink_mass_1, .*got 'entropie'"):
        rec.head_scores(["entropie"])
    with pytest.raises(rg.KindError, match="chosen by name"):
        rec.head_scores([3])  # type: ignore[list-item]


def test_a_table_sorts_and_prints(rec: rg.Record) -> None:
    table = rec.head_scores(["entropy", "confidence"])
    ordered = table.sort("entropy")
    assert list(ordered.mean["entropy"]) == sorted(table.mean["entropy"], reverse=True)
    assert {head.head for head in ordered.heads} == {0, 1, 2, 3}
    assert list(table.sort("entropy", descending=False).mean["entropy"]) == sorted(table.mean["entropy"])
    text = repr(ordered)
    assert text.splitlines()[0].split() == ["layer", "head", "entropy", "confidence"]
    assert text.endswith("4 heads, mean over 5 prompts")
    with pytest.raises(rg.ArgumentError, match="has the scores entropy, confidence: got 'x'"):
        table.sort("x")
    assert table.grids()["entropy"] == [list(table.mean["entropy"])]


def test_a_table_is_no_wider_than_the_terminal(rec: rg.Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    table = rec.head_scores(["entropy", "confidence", "sink_rate", "mean_distance"])
    lines = repr(table).splitlines()
    assert max(map(len, lines)) <= 50
    titles = [line.split() for line in lines if "layer" in line]
    assert len(titles) > 1
    assert all(title[:2] == ["layer", "head"] for title in titles)
    assert [name for title in titles for name in title[2:]] == list(table.names)


def test_csv_and_pandas_hold_the_same(rec: rg.Record, tmp_path: object) -> None:
    pandas = pytest.importorskip("pandas")
    table = rec.head_scores(["entropy", "sink_rate"])
    path = f"{tmp_path}/scores.csv"
    text = table.to_csv(path)
    rows = list(csv.DictReader(io.StringIO(text)))
    frame = table.to_pandas()
    assert list(frame.columns) == ["layer", "name", "head", "entropy", "entropy_se", "sink_rate", "sink_rate_se"]
    assert [float(row["entropy"]) for row in rows] == list(frame["entropy"])
    pandas.testing.assert_frame_equal(pandas.read_csv(path), frame, check_dtype=False)


def test_values_are_as_long_as_they_enter_the_output() -> None:
    layer = rg.nn.MultiHeadAttention(16, 12, 32, 0.0, num_heads=4, num_kv_heads=2)
    x = torch.randn(2, 9, 16)
    with torch.no_grad(), rg.record(layer) as rec:
        layer(x)
    v = layer.W_value(x).unflatten(-1, (2, 3)).transpose(1, 2).repeat_interleave(2, 1)
    per_head = layer.out_proj.weight.unflatten(1, (4, 3)).transpose(0, 1)
    norms = torch.stack([(v[:, h] @ per_head[h].T).norm(dim=-1) for h in range(4)], 1)
    torch.testing.assert_close(rec.layers[0].value_norms, norms.detach(), atol=1e-5, rtol=1e-5)

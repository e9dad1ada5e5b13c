"""Figures: what they draw, how they are labelled, and that they can be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg

pytest.importorskip("matplotlib")
WORDS = ["the", " cat", "猫", "\n", "$x$", "<b>", "a_very_long_token_indeed", "", "\0", "مرحبا"]


def drawn_of(axes: Any) -> torch.Tensor:
    """What a map draws, NaN where it is blank."""
    return torch.tensor(axes.images[0].get_array().filled(torch.nan))


@pytest.fixture(scope="module")
def rec() -> rg.Record:
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(rg.nn.CausalAttention(8, 8, 2000, 0.0) for _ in range(2))
    model = torch.nn.ModuleDict({"layers": layers})
    with torch.no_grad(), rg.record(model, tokens=WORDS) as rec:
        for layer in layers:
            layer(torch.randn(1, 10, 8))
    return rec


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_map_draws_the_weights_with_their_tokens(rec: rg.Record, suffix: str, tmp_path: Path) -> None:
    figure = rec.plot(1, 0, slice(2, 7), slice(0, 7))
    axes, bar = figure.axes
    drawn = drawn_of(axes)
    seen = torch.ones(5, 7, dtype=torch.bool).tril(2)  # what a causal mask hides is blank
    expected = torch.where(seen, rec.layers[1].weights[0, 0, 2:7, :7], torch.nan)
    torch.testing.assert_close(drawn, expected, equal_nan=True)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["猫", "↵", r"\$x\$", "<b>", "a_very_…indeed"]
    assert bar.get_ylabel() == "weight"
    path = tmp_path / f"map.{suffix}"
    figure.savefig(path)
    assert path.stat().st_size > 5_000


def test_a_large_window_is_pooled_and_says_so() -> None:
    layer = rg.nn.CausalAttention(8, 8, 2000, 0.0)
    with torch.no_grad(), rg.record(layer) as rec:
        layer(torch.randn(1, 1100, 8))
    figure = rec.plot(0, 0)
    drawn = drawn_of(figure.axes[0])
    assert drawn.shape == (512, 512)
    torch.testing.assert_close(drawn.nan_to_num(0), rec.layers[0].weights.pool(512, 512, kind="max")[0, 0])
    assert torch.equal(drawn.isnan(), torch.ones(512, 512, dtype=torch.bool).triu(1))
    assert figure.axes[1].get_ylabel() == "largest weight of a bin"


def test_scores_are_drawn_for_every_head(rec: rg.Record) -> None:
    figure = rec.plot_scores("entropy")
    drawn = torch.tensor(figure.axes[0].images[0].get_array())
    torch.testing.assert_close(drawn.tolist(), rec.head_scores().grids()["entropy"], rtol=1e-6, atol=0)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0", "1"]


def test_what_is_not_there_is_refused(rec: rg.Record) -> None:
    with pytest.raises(rg.ArgumentError, match="names 0 of the recorded layers"):
        rec.plot(7, 0)
    with pytest.raises(rg.ArgumentError, match="has the recorded heads"):
        rec.plot(0, 3)
    with pytest.raises(rg.ArgumentError, match="a map shows rows"):
        rec.plot(0, 0, slice(5, 5))
    with pytest.raises(rg.KindError, match=r"rows= is a slice such as slice\(0, 40\): got 5"):
        rec.plot(0, 0, 5)  # type: ignore[arg-type]
    with pytest.raises(rg.ArgumentError, match="'linear' or 'log'"):
        rec.plot(0, 0, colours="red")  # type: ignore[arg-type]
    with pytest.raises(rg.ArgumentError, match="head scores are"):
        rec.plot_scores("x")


def test_the_least_weight_is_drawn_on_a_log_scale(rec: rg.Record) -> None:
    figure = rec.plot(0, 0, colours="log")
    norm = figure.axes[0].images[0].norm
    assert isinstance(norm.vmin, float)
    assert isinstance(norm.vmax, float)
    assert norm.vmin == pytest.approx(norm.vmax * 1e-4)

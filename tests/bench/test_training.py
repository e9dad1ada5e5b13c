"""The training cases: both ways take the same step, and the other way is torch's function on the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import regard as rg
from regard.backends.native import library
from regard.bench import training
from regard.bench.cases import Case
from regard.bench.run import Measured
from regard.bench.timing import Pair
from regard.bench.training import TRAINING, steps
from regard.cli.main import main

needs_kernels = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")


@needs_kernels
@pytest.mark.parametrize("mask", [None, rg.SlidingWindow(7), rg.Document.from_lengths([10, 20, 10])], ids=repr)
def test_both_ways_take_the_same_steps(mask: rg.Mask | None) -> None:
    ours, theirs = steps(2, 40, mask)
    for _ in range(2):
        mine, other = ours(), theirs()
        assert (mine - other).abs().max() < 1e-4 * other.abs().max()


@needs_kernels
def test_a_mask_changes_the_step() -> None:
    plain, windowed = steps(1, 40, None)[0](), steps(1, 40, rg.SlidingWindow(1))[0]()
    assert (plain - windowed).abs().max() > 1e-3 * plain.abs().max()


@pytest.mark.parametrize("case", TRAINING, ids=lambda case: case.name)
def test_every_case_has_as_many_tokens_as_its_shape(case: Case) -> None:
    assert case.tokens == case.shape[0] * case.shape[2]
    assert case.target <= 1


def test_tokens_a_second_follow_from_the_medians() -> None:
    measured = Measured(replace(TRAINING[0], tokens=600), Pair((2.0,), (3.0,)))
    assert measured.rates == (300.0, 200.0)
    assert measured.record()["tokens_a_second"] == (300.0, 200.0)


@needs_kernels
def test_the_command_tells_tokens_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(training, "_TOKENS", 48)
    small = training._case("train-256", "", 24, 1.0)
    monkeypatch.setattr(training, "TRAINING", (small,))
    assert main(["bench", "training", "--runs", "1", "--json", str(tmp_path / "record.json")]) == 0
    assert "tokens/s" in capsys.readouterr().out

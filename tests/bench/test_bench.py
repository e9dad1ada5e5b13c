"""The benchmark's own arithmetic, its gate against wrong answers, and its command. No figure is asserted."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.backends.native import Native, library
from regard.bench.cases import CASES, Attend, Case
from regard.bench.features import FEATURES
from regard.bench.forced import measure_forced
from regard.bench.gathering import GATHERING
from regard.bench.growth import fit, measure_growth
from regard.bench.kernels import KERNELS
from regard.bench.limits import Limits
from regard.bench.memory import measure_memory, measure_weights_memory, peak_extra
from regard.bench.modules import MODULES
from regard.bench.picture import draw
from regard.bench.run import DisagreementError, Measured, measure
from regard.bench.timing import Pair, alternate
from regard.cli.main import main

CPU = torch.device("cpu")
needs_kernels = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")


def small(case: Case) -> Case:
    heads = case.shape[1] if case.backend == "native" else 2
    return replace(case, shape=(1, heads, 16_384 if "documents" in case.name else 300, 8), repeat=1)


@pytest.mark.parametrize(
    "case",
    [c for c in (*CASES, *KERNELS, *FEATURES, *GATHERING, *MODULES) if "documents" not in c.name and c.rival != "flex"],
    ids=lambda c: c.name,
)
def test_both_ways_of_every_case_agree_and_are_timed(case: Case) -> None:
    if case.missing:
        pytest.skip(case.missing)
    measured = measure(small(case), CPU, 2, Limits(1e12, 1e11))
    assert len(measured.pair.ours) == len(measured.pair.theirs) == 2
    assert measured.record()["name"] == case.name


def test_a_wrong_answer_is_not_timed() -> None:
    def wrong(device: torch.device) -> tuple[Attend, Attend]:
        mine, other = CASES[0].make(device)
        return (lambda q, k, v: mine(q, k, v) + 1e-2), other

    with pytest.raises(DisagreementError, match="No time is reported for a wrong answer"):
        measure(replace(small(CASES[0]), make=wrong), CPU, runs=1)


def test_the_ratio_is_the_median_over_turns() -> None:
    pair = Pair(ours=(1.0, 4.0, 9.0), theirs=(2.0, 2.0, 3.0))
    assert pair.ratio == 2.0
    assert pair.medians == (4.0, 2.0)


def test_functions_take_turns_after_one_warm_up_each() -> None:
    order: list[str] = []
    pair = alternate(lambda: order.append("a"), lambda: order.append("b"), runs=2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert len(pair.ours) == 2


def test_no_turn_begins_when_the_time_is_over() -> None:
    slow = alternate(lambda: time.sleep(0.02), lambda: None, runs=100, seconds=0.07)
    assert 1 < len(slow.ours) == len(slow.theirs) < 10
    assert len(alternate(lambda: None, lambda: None, runs=100, seconds=0).ours) == 1


def test_memory_sees_what_is_held_for_a_moment() -> None:
    def function() -> None:
        held = bytearray(b"\1" * 80_000_000)
        time.sleep(0.05)
        del held

    assert 60_000_000 < peak_extra(function) < 200_000_000


def test_what_is_free_before_counts_as_new() -> None:
    def function() -> list[bytearray]:
        return [bytearray(b"\1" * 100_000) for _ in range(600)]  # too small for memory of their own

    pinned = (function() + function())[::100]  # keeps the allocator from giving all of it back by itself
    assert 50_000_000 < peak_extra(function) < 100_000_000
    del pinned


def test_memory_of_attention_is_related_to_its_operands() -> None:
    used = measure_memory(1024, features=16)
    assert used.operands == 8 * 1024 * 16 * 4
    assert used.record()["tokens"] == 1024
    assert used.target == (3.0 if library.missing() else 1.0)
    assert measure_weights_memory(1024, features=16).operands == 4 * (4 * 1024 * 16 + 2 * 1024)


def test_the_command_prints_a_table_and_saves_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regard.bench.cases.CASES", tuple(small(c) for c in CASES))
    record = tmp_path / "record.json"
    assert main(["bench", "causal", "memory", "--runs", "1", "--tokens", "512", "--json", str(record)]) == 0
    printed = capsys.readouterr().out
    assert "eager" in printed
    assert "causal forward + backward at 512 tokens" in printed.replace("\n", " ")
    saved = json.loads(record.read_text())
    assert saved["machine"]["threads"] == torch.get_num_threads()
    assert [case["name"] for case in saved["cases"]] == ["causal"]
    assert [use["tokens"] for use in saved["memory"]] == [512]


def test_a_case_without_its_backend_is_left_out_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Native, "missing", lambda self: "has no compiled kernels here")
    assert main(["bench", "native-full"]) == 0
    assert "native-full is left out: has no compiled kernels here" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nonesuch"], "no case is named nonesuch"), (["causal", "--runs", "0"], "must be at least 1")],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_line_through_points_on_a_line_is_that_line() -> None:
    found = fit((1, 2, 3), (100, 200, 400), (1e-3 + 100e-6, 1e-3 + 200e-6, 1e-3 + 400e-6))
    assert found.fixed == pytest.approx(1e-3)
    assert found.per_pair == pytest.approx(1e-6)
    assert found.worst < 1e-9
    assert "1.000 ms + 1000.0000 ns a pair" in str(found)


@needs_kernels
def test_growth_counts_the_pairs_of_its_window() -> None:
    found = measure_growth(1, lengths=(1000, 3000))
    assert found.pairs == tuple(2 * int(rg.SlidingWindow.of_width(1024).dense(n, n).sum()) for n in (1000, 3000))


@needs_kernels
def test_limits_are_measured() -> None:
    limits = Limits.here(runs=2)
    assert limits is not None
    assert limits.flops > 1e8
    assert limits.read_bytes > 1e8


@needs_kernels
def test_a_share_of_the_peak_counts_visible_pairs() -> None:
    case = next(c for c in KERNELS if c.name == "native-causal-1024")
    assert case.visible == 1024 * 1025 // 2
    one = Measured(case, Pair((2.0,), (4.0,)), Limits(flops=4 * 64 * 8 * case.visible, read_bytes=1.0))
    assert one.share == 0.5


def test_an_overhead_is_met_by_time_and_not_by_ratio() -> None:
    case = next(c for c in KERNELS if c.name == "native-overhead")
    assert Measured(case, Pair((14e-6,), (5e-6,))).met
    assert not Measured(case, Pair((16e-6,), (5e-6,))).met


def test_an_unknown_rival_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--against", "numpy"]) == 2
    assert "--against takes some of torch,flex,eager,own: got numpy" in capsys.readouterr().err


def test_a_picture_is_saved(tmp_path: Path) -> None:
    case = next(c for c in KERNELS if c.name == "native-causal")
    growth = fit((1, 2, 3), (100, 200, 400), (1e-3, 2e-3, 4e-3))
    draw([Measured(case, Pair((1.0,), (2.0,)))], growth, tmp_path / "bench.png", "a machine")
    assert (tmp_path / "bench.png").stat().st_size > 5000


def test_a_ratio_per_pair_counts_the_pairs_of_each_way() -> None:
    case = next(c for c in KERNELS if c.name == "native-window-pairs")
    length = 16_384
    assert case.pairs == (128 * length - 127 * 64, length * (length + 1) // 2)
    one = Measured(case, Pair((1.0,), (100.0,)))
    assert one.record()["ratio"] == one.ratio == pytest.approx(case.pairs[1] / case.pairs[0] / 100)


@pytest.mark.parametrize("name", ["learned", "relative", "sinks"])
def test_what_is_learned_gets_the_same_gradient_both_ways(name: str) -> None:
    case = next(c for c in FEATURES if c.name == f"native-{name}-backward")
    if case.missing:
        pytest.skip(case.missing)
    q, k, v = torch.randn(3, 1, 8, 130, 8).unbind()
    (ours,), (theirs,) = (torch.autograd.grad(way(q, k, v).square().sum(), case.learned()) for way in case.make(CPU))
    assert ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_kernels
def test_a_variant_is_forced_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # The slowest processor has this one.
    case = next(c for c in KERNELS if c.name == "native-overhead")
    forced: list[str] = []
    run = subprocess.run

    def seen(command: list[str], **arguments: Any) -> object:
        forced.append(arguments["env"][library.CHOICE])
        return run(command, timeout=60, **arguments)

    monkeypatch.setattr(subprocess, "run", seen)
    measured = measure_forced(replace(case, variant="portable"), CPU, 1)
    assert forced == ["portable"]
    assert len(measured.pair.ours) == 1


def test_a_variant_that_cannot_run_here_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "supported", lambda: ("portable",))
    assert main(["bench", "native-avx2"]) == 0
    assert "native-avx2 is left out: the avx2 kernels cannot run here" in capsys.readouterr().out.replace("\n", " ")

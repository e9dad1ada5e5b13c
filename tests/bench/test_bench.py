"""The benchmark's own arithmetic, its gate against wrong answers, and its command. No figure is asserted."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regard.backends.native import Native
from regard.bench.cases import CASES, Attend, Case
from regard.bench.memory import peak_extra
from regard.bench.modules import MODULES
from regard.bench.run import DisagreementError, measure, measure_memory
from regard.bench.timing import Pair, alternate
from regard.cli.main import main

CPU = torch.device("cpu")


def small(case: Case) -> Case:
    return replace(case, shape=(1, 2, 16_384 if "documents" in case.name else 300, 8))


@pytest.mark.parametrize("case", [*(c for c in CASES if "documents" not in c.name), *MODULES], ids=lambda c: c.name)
def test_both_ways_of_every_case_agree_and_are_timed(case: Case) -> None:
    measured = measure(small(case), CPU, runs=2)
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


def test_memory_sees_what_is_held_for_a_moment() -> None:
    def function() -> None:
        held = bytearray(b"\1" * 80_000_000)
        time.sleep(0.05)
        del held

    assert 60_000_000 < peak_extra(function) < 200_000_000


def test_memory_of_attention_is_related_to_its_operands() -> None:
    used = measure_memory(1024, features=16)
    assert used.operands == 8 * 1024 * 16 * 4
    assert used.record()["tokens"] == 1024


def test_the_command_prints_a_table_and_saves_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regard.bench.cases.CASES", tuple(small(c) for c in CASES))
    record = tmp_path / "record.json"
    assert main(["bench", "causal", "memory", "--runs", "1", "--tokens", "512", "--json", str(record)]) == 0
    printed = capsys.readouterr().out
    assert "blockwise," in printed
    assert "memory: causal forward + backward at 512 tokens" in printed
    saved = json.loads(record.read_text())
    assert saved["machine"]["threads"] == torch.get_num_threads()
    assert [case["name"] for case in saved["cases"]] == ["causal"]
    assert saved["memory"]["tokens"] == 512


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

"""What is no score change is refused with the rule, what was given, and the repair."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import regard as rg

WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: rg.Softcap("30"), rg.KindError, r"Softcap's cap must be a number: got '30'"),  # type: ignore[arg-type]
    (lambda: rg.Softcap(True), rg.KindError, r"Softcap's cap must be a number: got True"),
    (lambda: rg.Softcap(0.0), rg.ArgumentError, r"Softcap's cap must be positive and finite: got 0.0"),
    (lambda: rg.Softcap(math.nan), rg.ArgumentError, r"positive and finite: got nan"),
    (lambda: rg.Alibi(torch.tensor([1, 2])), rg.KindError, r"Alibi takes a float tensor of slopes.*got int64 \(2,\)"),
    (lambda: rg.Alibi(torch.ones(2, 1)), rg.ShapeError, r"slopes must be \(H,\), one per query head: got \(2, 1\)"),
    (lambda: rg.Alibi.for_heads(0), rg.ArgumentError, r"Alibi.for_heads takes a positive number of heads: got 0"),
    (
        lambda: rg.Bias(torch.ones(2, 2, dtype=torch.bool)),
        rg.KindError,
        r"A bool mask, True = may attend, is mask=Dense",
    ),
    (lambda: rg.Bias(1.0), rg.KindError, r"Bias takes a float tensor that is added to the scores: got 1.0"),  # type: ignore[arg-type]
    (lambda: rg.Bias(torch.ones(1, 1, 1, 1, 1)), rg.ShapeError, r"at most 4 dims: got 5"),
    (lambda: rg.RelativeBias(2.5), rg.KindError, r"RelativeBias's num_heads must be an int: got 2.5"),  # type: ignore[arg-type]
    (lambda: rg.RelativeBias(2, buckets=7), rg.ArgumentError, r"even number of buckets.*got num_heads=2, buckets=7"),
    (
        lambda: rg.RelativeBias(2, buckets=32, max_distance=8),
        rg.ArgumentError,
        r"max_distance above the 8 exact buckets",
    ),
    (lambda: rg.ScoreMod(3), rg.KindError, r"ScoreMod takes a function fn\(s, b, h, q, k\) -> scores: got 3"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "words"), WRONG, ids=[words[:40] for _, _, words in WRONG])
def test_a_wrong_value_is_refused_when_it_is_made(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


MISFITS: list[tuple[Any, type[Exception], str]] = [
    (rg.Alibi(torch.ones(3)), rg.ShapeError, r"Alibi has 3 slopes, but the call has 2 query heads"),
    (rg.Bias(torch.ones(4, 5)), rg.ShapeError, r"broadcast to \(B, H, q_len, k_len\) = \(1, 2, 5, 5\): got \(4, 5\)"),
    (rg.RelativeBias(3), rg.ShapeError, r"RelativeBias has 3 heads, but the call has 2 query heads"),
    (torch.ones(5, 5), rg.KindError, r"score_mod= takes one score change.*a float tensor with Bias\(tensor\)"),
    ([rg.Softcap(2.0), len], rg.KindError, r"got <built-in function len>.*becomes one with ScoreMod\(fn\)"),
]


@pytest.mark.parametrize(("mod", "error", "words"), MISFITS, ids=[words[:40] for _, _, words in MISFITS])
def test_a_score_change_that_does_not_fit_the_call_is_refused(mod: Any, error: type[Exception], words: str) -> None:
    q, k, v = torch.randn(3, 2, 5, 4).unbind()
    with pytest.raises(error, match=words):
        rg.attention(q, k, v, score_mod=mod)


FUNCTIONS: list[tuple[Any, type[Exception], str]] = [
    (lambda s, b, h, q, k: q > k, rg.KindError, r"must return a float tensor of scores: got bool"),
    (lambda s, b, h, q, k: None, rg.KindError, r"must return a float tensor of scores: got None"),
    (
        lambda s, b, h, q, k: s.sum(-1, keepdim=True),
        rg.ShapeError,
        r"must keep the shape of its scores, .*, 5\): got .*1\)",
    ),
]


@pytest.mark.parametrize("name", ["reference", "blockwise"])
@pytest.mark.parametrize(("fn", "error", "words"), FUNCTIONS, ids=[words[:40] for _, _, words in FUNCTIONS])
def test_a_function_that_returns_no_scores_is_refused(name: str, fn: Any, error: type[Exception], words: str) -> None:
    q, k, v = torch.randn(3, 2, 5, 4).unbind()
    with pytest.raises(error, match=words):
        rg.attention(q, k, v, score_mod=rg.ScoreMod(fn), backend=name)

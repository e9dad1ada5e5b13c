"""``&``, ``|`` and ``~``: the laws of a Boolean algebra, and the simplifications made while building."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard._coordinates import Frame
from regard._errors import KindError
from regard.masks import And, Not, Or
from regard.testing.strategies import frames, masks

causal, window, prefix = rg.Causal(), rg.SlidingWindow(2), rg.Prefix(3)


@st.composite
def framed(draw: st.DrawFn, count: int) -> tuple[Frame, list[rg.Mask]]:
    frame = draw(frames())
    fits = masks(frame.batch, frame.heads, frame.q_len, frame.k_len, depth=2, default_positions=frame.by_default)
    return frame, [draw(fits) for _ in range(count)]


def same(frame: Frame, left: rg.Mask, right: rg.Mask | Tensor) -> bool:
    shape = (frame.batch, frame.heads, frame.q_len, frame.k_len)
    other = right.over(frame) if isinstance(right, rg.Mask) else right
    return left.over(frame).expand(shape).equal(other.expand(shape))


@given(framed(2))
def test_dense_of_a_combination_is_the_combination_of_the_dense(case: tuple[Frame, list[rg.Mask]]) -> None:
    frame, (a, b) = case
    assert same(frame, a & b, a.over(frame) & b.over(frame))
    assert same(frame, a | b, a.over(frame) | b.over(frame))
    assert same(frame, ~a, ~a.over(frame))


@given(framed(2))
def test_de_morgan(case: tuple[Frame, list[rg.Mask]]) -> None:
    frame, (a, b) = case
    assert same(frame, ~(a & b), ~a | ~b)
    assert same(frame, ~(a | b), ~a & ~b)


@given(framed(3))
def test_commutative_associative_distributive(case: tuple[Frame, list[rg.Mask]]) -> None:
    frame, (a, b, c) = case
    assert same(frame, a & b, b & a)
    assert same(frame, a | b, b | a)
    assert same(frame, (a & b) & c, a & (b & c))
    assert same(frame, (a | b) | c, a | (b | c))
    assert same(frame, a & (b | c), (a & b) | (a & c))
    assert same(frame, a | (b & c), (a | b) & (a | c))


@given(framed(2))
def test_absorption_and_complement(case: tuple[Frame, list[rg.Mask]]) -> None:
    frame, (a, b) = case
    assert same(frame, a & (a | b), a)
    assert same(frame, a | (a & b), a)
    assert same(frame, a & ~a, rg.Nothing())
    assert same(frame, a | ~a, rg.Everything())


@given(masks())
def test_these_laws_hold_of_the_values_themselves(a: rg.Mask) -> None:
    assert ~~a == a
    assert a & a == a
    assert a | a == a
    assert a & rg.Everything() == a
    assert a | rg.Nothing() == a
    assert a & rg.Nothing() == rg.Nothing()
    assert a | rg.Everything() == rg.Everything()
    assert a & ~a == rg.Nothing()
    assert a | ~a == rg.Everything()


@given(masks(), masks(), masks())
def test_and_or_are_equal_in_any_order_and_grouping(a: rg.Mask, b: rg.Mask, c: rg.Mask) -> None:
    for left, right in (((a & b) & c, c & (b & a)), ((a | b) | c, c | (b | a))):
        assert left == right
        assert hash(left) == hash(right)


def test_simplification() -> None:
    assert (causal & window) & prefix == And((causal, window, prefix))
    assert (causal | window) | prefix == Or((causal, window, prefix))
    assert causal & window & causal == And((causal, window))
    assert causal & (causal | window) == causal
    assert causal | (causal & window) == causal
    assert (causal & window) | prefix | (window & causal) == Or((And((causal, window)), prefix))
    assert (causal & window) & ~causal == rg.Nothing()
    assert (causal | ~window) | window == rg.Everything()
    assert causal & window & prefix & ~(window & causal) == rg.Nothing()
    assert causal | prefix | ~(prefix | causal) == rg.Everything()
    assert ~rg.Everything() == rg.Nothing()
    assert ~Not(causal) == causal


def test_parts_stay_in_the_order_they_were_written() -> None:
    assert repr(rg.Dilated(2) & causal & window) == "Dilated(2) & Causal() & SlidingWindow(2, 0)"


def test_masks_over_equal_but_distinct_tensors_are_not_merged() -> None:
    table = torch.ones(3, 3, dtype=torch.bool)
    assert rg.Dense(table) & rg.Dense(table) == rg.Dense(table)
    assert isinstance(rg.Dense(table) & rg.Dense(table.clone()), And)


def test_a_mask_has_no_truth_value() -> None:
    with pytest.raises(KindError, match=r"no truth value. Combine masks with & \| ~ instead of and, or, not"):
        bool(causal and window)


@pytest.mark.parametrize("combine", [lambda a, b: a & b, lambda a, b: a | b], ids=["and", "or"])
def test_a_mask_combines_with_masks_only(combine) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(KindError, match=r"got bool \(3, 3\).*Dense\(tensor\), where True means may attend"):
        combine(causal, torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(KindError, match="masks combine with masks: got True"):
        combine(causal, True)

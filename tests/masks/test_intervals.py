"""The row-interval form: wherever one is given it says what the definition says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard._coordinates import Frame
from regard.masks import RowIntervals
from regard.masks.intervals import MAX_INTERVALS
from regard.testing.strategies import framed_masks, masks

LQ, LK = 11, 13
IDS = torch.tensor([4, 4, 4, 1, 1, 7, 7, 7, 7, 0, 0, 0, 0])
BATCHED_IDS = torch.stack([IDS, IDS.flip(0)])
TORN_IDS = torch.tensor([0, 1, 0, 1, 2, 2, 0, 1, 1, 0, 2, 1, 0])

ONE_INTERVAL = [
    rg.Everything(),
    rg.Nothing(),
    rg.Causal(),
    rg.SlidingWindow(3),
    rg.SlidingWindow(2, 2),
    rg.SlidingWindow(None, 1),
    rg.SlidingWindow(1, None),
    rg.Prefix(5),
    rg.Chunked(4),
    rg.Document(IDS),
    rg.Document(BATCHED_IDS),
    rg.Padding(torch.tensor([3, 11])),
    rg.Causal() & rg.SlidingWindow(3) & rg.Document(BATCHED_IDS) & rg.Padding(torch.tensor([12, 6])),
    ~rg.Causal(),
]
BY_POSITION = [m for m in ONE_INTERVAL if not m.tensors()]


def check(rows: RowIntervals | None, mask: rg.Mask, frame: Frame) -> RowIntervals:
    """``rows`` is canonical and holds what the mask's definition holds."""
    assert rows is not None
    full, empty = rows.start < rows.stop, rows.start >= rows.stop
    assert (rows.start >= 0).all()
    assert (rows.stop <= frame.k_len).all()
    assert (rows.start[empty] == frame.k_len).all()
    assert (rows.stop[empty] == frame.k_len).all()
    assert (full[..., 1:] <= full[..., :-1]).all(), "the empty ones come last"
    assert ((rows.start[..., 1:] > rows.stop[..., :-1]) | empty[..., 1:]).all(), "sorted, disjoint and not adjacent"
    assert rows.start.shape[0] in (1, frame.batch)
    whole = (frame.batch, frame.heads, frame.q_len, frame.k_len)
    assert rows.dense().expand(whole).equal(mask.over(frame).expand(whole))
    return rows


@pytest.mark.parametrize("mask", ONE_INTERVAL, ids=repr)
@pytest.mark.parametrize("q_len", [LQ, LK, LK + 4, 1, 0])
def test_one_interval_a_row_by_default(mask: rg.Mask, q_len: int) -> None:
    frame = mask.frame(q_len, LK)
    assert check(mask.intervals(frame), mask, frame).per_row == 1


@pytest.mark.parametrize("mask", ONE_INTERVAL, ids=repr)
def test_one_interval_a_row_over_ascending_positions(mask: rg.Mask) -> None:
    q_positions = torch.tensor([5, -3, 5, 99, 0, 12, 13, 1, 7, 7, 2])
    k_positions = torch.tensor([-4, -4, -1, 0, 1, 1, 3, 6, 7, 10, 12, 20, 20])
    frame = mask.frame(LQ, LK, q_positions, k_positions)
    assert check(mask.intervals(frame), mask, frame).per_row == 1


@pytest.mark.parametrize("turn", [1, 5, 12])
@pytest.mark.parametrize("mask", ONE_INTERVAL, ids=repr)
def test_a_ring_buffer_leaves_at_most_two(mask: rg.Mask, turn: int) -> None:
    frame = mask.frame(LQ, LK, torch.arange(2, 2 + LQ), torch.arange(LK).roll(turn))
    assert check(mask.intervals(frame), mask, frame).per_row <= 2


@pytest.mark.parametrize("mask", ONE_INTERVAL, ids=repr)
def test_batched_positions(mask: rg.Mask) -> None:
    q_positions = torch.stack([torch.arange(LQ), torch.arange(LQ).flip(0)])
    k_positions = torch.stack([torch.arange(LK), torch.arange(LK).roll(4)])
    frame = mask.frame(LQ, LK, q_positions, k_positions)
    assert check(mask.intervals(frame), mask, frame).per_row <= 2


@pytest.mark.parametrize("mask", BY_POSITION, ids=repr)
def test_shuffled_positions_have_a_form_only_where_it_is_true(mask: rg.Mask) -> None:
    shuffled = torch.tensor([3, 9, 1, 12, 0, 5, 11, 2, 8, 4, 10, 6, 7])
    frame = mask.frame(LQ, LK, None, shuffled)
    rows = mask.intervals(frame)
    if rows is not None:
        check(rows, mask, frame)


@pytest.mark.parametrize(
    "mask",
    [
        rg.SlidingWindow(3) | rg.Causal() & rg.Prefix(2),
        rg.Chunked(3) | rg.Prefix(1),
        rg.Document(IDS) | rg.Prefix(1),
        ~rg.SlidingWindow(2),
        rg.Padding.from_valid(torch.tensor([[False, True, True] + [False] * 6 + [True] * 4])),
    ],
    ids=repr,
)
def test_at_most_two_intervals_a_row(mask: rg.Mask) -> None:
    frame = mask.frame(LK, LK)
    assert check(mask.intervals(frame), mask, frame).per_row == 2


@pytest.mark.parametrize(
    "mask",
    [
        rg.Dilated(2),
        rg.Dense(torch.ones(LQ, LK, dtype=torch.bool)),
        rg.Predicate(lambda b, h, q, k: q >= k),
        rg.Document(TORN_IDS),
        rg.Padding.from_valid(torch.arange(LK)[None] % 2 == 0),
        rg.Causal() & rg.Dilated(3),
        ~rg.Dilated(2),
    ],
    ids=repr,
)
def test_masks_without_a_form_give_none(mask: rg.Mask) -> None:
    assert mask.intervals(mask.frame(LQ, LK)) is None


def test_dilated_by_one_is_everything() -> None:
    assert rg.Dilated(1).intervals(rg.Dilated(1).frame(LQ, LK)) is not None


@settings(max_examples=300)
@given(framed_masks())
def test_the_form_agrees_with_the_definition_wherever_there_is_one(case: tuple[rg.Mask, Frame]) -> None:
    mask, frame = case
    rows = mask.intervals(frame)
    if rows is None:
        return
    check(rows, mask, frame)
    assert rows.per_row <= MAX_INTERVALS
    dense = rows.dense()[:, 0]
    assert rows.seen_keys().equal(dense.any(1))
    assert rows.seeing_rows().equal(dense.any(2))
    check(rows.complement(), ~mask, frame)


@settings(max_examples=200)
@given(framed_masks(depth=1), st.data())
def test_intersect_and_unite(case: tuple[rg.Mask, Frame], data: st.DataObject) -> None:
    first, frame = case
    sizes = (frame.batch, frame.heads, frame.q_len, frame.k_len)
    second = data.draw(masks(*sizes, depth=1, default_positions=frame.by_default))
    left, right = first.intervals(frame), second.intervals(frame)
    if left is None or right is None:
        return
    assert left.intersect(right).dense().equal(left.dense() & right.dense())
    assert left.unite(right).dense().equal(left.dense() | right.dense())


def test_intervals_that_overlap_or_touch_are_merged() -> None:
    def row(*bounds: tuple[int, int]) -> RowIntervals:
        start, stop = torch.tensor(bounds).unbind(-1)
        return RowIntervals(start[None, None], stop[None, None], 20)

    def pairs(rows: RowIntervals) -> list[tuple[int, int]]:
        narrow = rows.narrow()
        return list(zip(narrow.start.flatten().tolist(), narrow.stop.flatten().tolist(), strict=True))

    assert pairs(row((2, 5)).unite(row((5, 9)))) == [(2, 9)]
    assert pairs(row((2, 5)).unite(row((6, 9)))) == [(2, 5), (6, 9)]
    assert pairs(row((2, 12)).unite(row((4, 6)))) == [(2, 12)]
    assert pairs(row((2, 5), (8, 12)).unite(row((4, 9)))) == [(2, 12)]
    assert pairs(row((2, 5), (8, 12)).intersect(row((4, 9)))) == [(4, 5), (8, 9)]
    assert pairs(row((2, 5)).intersect(row((5, 9)))) == [(20, 20)]
    assert pairs(row((0, 5), (8, 20)).complement()) == [(5, 8)]
    assert pairs(row((20, 20)).complement()) == [(0, 20)]


def test_seen_keys_and_seeing_rows_of_a_batch() -> None:
    mask = rg.Padding(torch.tensor([0, 2]))
    frame = mask.frame(3, 4)
    rows = mask.intervals(frame)
    assert rows is not None
    assert rows.seen_keys().tolist() == [[False] * 4, [True, True, False, False]]
    assert rows.seeing_rows().tolist() == [[False] * 3, [True] * 3]


def test_the_form_of_a_long_mask_is_of_the_order_of_its_rows() -> None:
    def bytes_of(tensor: Tensor) -> int:
        return tensor.numel() * tensor.element_size()

    mask = rg.Causal() & rg.SlidingWindow(255) & rg.Document.from_lengths([1 << 16, 1 << 16])
    rows = mask.intervals(mask.frame(1 << 17, 1 << 17))
    assert rows is not None
    assert bytes_of(rows.start) == 8 << 17

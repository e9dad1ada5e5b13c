"""The block map: EMPTY and FULL are always true, exact where the mask has a closed form, and nothing of size L²."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import regard as rg
from regard._coordinates import Frame
from regard._errors import ArgumentError
from regard.masks import And, BlockMap, Coverage, Not, Or, Run
from regard.masks.blocks import from_grid
from regard.testing.strategies import framed_masks

BLOCKS = [(1, 1), (1, 4), (3, 1), (2, 3), (4, 4), (7, 2), (64, 64)]
block_shapes = st.tuples(st.integers(1, 13), st.integers(1, 13))


def classified(dense: Tensor, block: tuple[int, int]) -> Tensor:
    """The coverage of every block, looked up pair by pair."""
    batch, heads, q_len, k_len = dense.shape
    rows = [dense[:, :, i : i + block[0]] for i in range(0, q_len, block[0])]
    grid = torch.zeros((batch, heads, len(rows), -(-k_len // block[1])), dtype=torch.uint8)
    for r, row in enumerate(rows):
        for c, j in enumerate(range(0, k_len, block[1])):
            pairs = row[..., j : j + block[1]].flatten(2)
            grid[:, :, r, c] = pairs.any(2).to(torch.uint8) + pairs.all(2).to(torch.uint8)
    return grid


def whole_grid(mask: rg.Mask, frame: Frame, block: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The grid of the block map and the true one, both of the call's full batch and heads."""
    grid = mask.block_map(frame, block).grid()
    true = classified(mask.over(frame).expand(frame.batch, frame.heads, -1, -1), block)
    return grid.expand(true.shape), true


@settings(max_examples=300)
@given(framed_masks(), block_shapes)
def test_empty_and_full_are_sound_for_every_expression(case: tuple[rg.Mask, Frame], block: tuple[int, int]) -> None:
    mask, frame = case
    grid, true = whole_grid(mask, frame, block)
    assert ((grid == true) | (grid == Coverage.PARTIAL)).all()


@settings(max_examples=300)
@given(framed_masks(), block_shapes)
def test_primitives_and_interval_forms_are_exact(case: tuple[rg.Mask, Frame], block: tuple[int, int]) -> None:
    mask, frame = case
    primitive = not isinstance(mask.part if isinstance(mask, Not) else mask, And | Or)
    if primitive or mask.intervals(frame) is not None:
        grid, true = whole_grid(mask, frame, block)
        assert grid.equal(true)


EXACT = [
    rg.Causal(),
    rg.SlidingWindow(3),
    rg.SlidingWindow(1, 4),
    rg.Prefix(5),
    rg.Chunked(4),
    rg.Dilated(3),
    rg.Everything(),
    rg.Nothing(),
    rg.Document(torch.tensor([0, 0, 0, 0, 1, 1, 5, 5, 5, 5, 5, 2, 2])),
    rg.Document(torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 2, 2])),
    rg.Padding(torch.tensor([0, 9, 13])),
    rg.Padding.from_valid(torch.arange(13)[None] % 5 < 3),
    rg.Dense(torch.rand(2, 3, 11, 13, generator=torch.Generator().manual_seed(1)) > 0.2),
    rg.Predicate(lambda b, h, q, k: (q + k) % 7 < 5),
    rg.Causal() & rg.SlidingWindow(4) & rg.Document(torch.arange(13) // 5),
    rg.SlidingWindow(2) | rg.Causal() & rg.Prefix(2),
    ~rg.SlidingWindow(2, 2),
]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("mask", EXACT, ids=repr)
def test_exact_for_every_block_shape(mask: rg.Mask, block: tuple[int, int]) -> None:
    frame = mask.frame(11, 13)
    grid, true = whole_grid(mask, frame, block)
    assert grid.equal(true)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("mask", [m for m in EXACT if not isinstance(m, rg.Dense)], ids=repr)
def test_exact_over_a_ring_buffer(mask: rg.Mask, block: tuple[int, int]) -> None:
    frame = mask.frame(11, 13, torch.arange(2, 13), torch.arange(13).roll(5))
    grid, true = whole_grid(mask, frame, block)
    assert grid.equal(true)


@settings(max_examples=200)
@given(framed_masks(), block_shapes)
def test_runs_counts_and_grid_say_the_same(case: tuple[rg.Mask, Frame], block: tuple[int, int]) -> None:
    mask, frame = case
    blocks = mask.block_map(frame, block)
    grid = blocks.grid()
    assert grid.shape == (blocks.batch, blocks.heads, blocks.block_rows, blocks.block_cols)
    assert (blocks.block_rows, blocks.block_cols) == (-(-frame.q_len // block[0]), -(-frame.k_len // block[1]))
    drawn = torch.zeros_like(grid)
    rows = list(blocks)
    assert [row[:3] for row in rows] == [tuple(x) for x in torch.ones(grid.shape[:3]).nonzero().tolist()]
    for b, h, r, runs in rows:
        assert blocks.runs(r, b, h) == runs
        for run in runs:
            assert 0 <= run.start < run.stop <= blocks.block_cols
            assert run.coverage != Coverage.EMPTY
            drawn[b, h, r, run.start : run.stop] = int(run.coverage)
        for left, right in pairwise(runs):
            assert left.stop < right.start or (left.stop == right.start and left.coverage != right.coverage)
    assert drawn.equal(grid)
    assert blocks.counts() == {kind: int((grid == kind).sum()) for kind in Coverage}


@given(st.integers(0, 2**32 - 1), st.tuples(*(st.integers(0, 4) for _ in range(4))))
def test_from_grid_and_back(seed: int, shape: tuple[int, int, int, int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randint(0, 3, shape, dtype=torch.uint8, generator=generator)
    blocks = from_grid(grid, shape[2] * 5 - (shape[2] > 0), shape[3] * 7, (5, 7))
    assert blocks.grid().equal(grid)


def test_runs_of_a_batch_that_shares_one_map() -> None:
    blocks = rg.Causal().blocks(8, 8, (4, 4), batch=3, heads=2)
    assert (blocks.batch, blocks.heads) == (1, 1)
    assert blocks.runs(1, batch=2, head=1) == [Run(0, 1, Coverage.FULL), Run(1, 2, Coverage.PARTIAL)]


def test_a_ragged_last_block_speaks_of_the_pairs_that_exist() -> None:
    assert rg.Everything().blocks(5, 5, (4, 4)).grid().eq(Coverage.FULL).all()
    assert rg.Nothing().blocks(5, 5, (4, 4)).grid().eq(Coverage.EMPTY).all()
    assert rg.Causal().blocks(1, 9, (4, 4)).grid().flatten().tolist() == [Coverage.FULL] * 3


def test_a_block_larger_than_the_sequence() -> None:
    assert rg.Causal().blocks(3, 3, (64, 64)).grid().tolist() == [[[[Coverage.PARTIAL]]]]
    assert rg.Everything().blocks(3, 3, (64, 64)).grid().tolist() == [[[[Coverage.FULL]]]]


@pytest.mark.parametrize(("q_len", "k_len"), [(0, 0), (0, 5), (5, 0)])
@pytest.mark.parametrize("mask", [rg.Causal(), rg.Dilated(2), rg.Causal() & rg.Dilated(2)], ids=repr)
def test_zero_lengths(mask: rg.Mask, q_len: int, k_len: int) -> None:
    blocks = mask.blocks(q_len, k_len, (4, 4))
    assert blocks.counts() == dict.fromkeys(Coverage, 0)
    assert [runs for *_, runs in blocks] == [[]] * blocks.block_rows


def test_repr_counts_the_blocks() -> None:
    blocks = rg.Causal().blocks(130, 130)
    assert repr(blocks) == "<BlockMap 130 x 130 in blocks of 64 x 64: 3 EMPTY, 3 PARTIAL, 3 FULL>"


@pytest.mark.parametrize("block", [(0, 4), (4, -1), (4,), (4.0, 4), (4, 4, 4), (True, 4), 4])
def test_a_block_has_two_positive_sides(block: Any) -> None:
    with pytest.raises(ArgumentError, match=r"block must be two positive ints \(rows, columns\): got"):
        rg.Causal().blocks(8, 8, block)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without annotations
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


def made(build: Any) -> tuple[BlockMap, int]:
    with LargestTensor() as watch:
        blocks = build()
    return blocks, watch.numel


def test_a_million_causal_tokens_need_nothing_of_size_l_squared() -> None:
    length = 1_000_000
    blocks, largest = made(lambda: rg.Causal().blocks(length, length))
    rows = length // 64
    assert blocks.counts() == {
        Coverage.EMPTY: rows * (rows - 1) // 2,
        Coverage.PARTIAL: rows,
        Coverage.FULL: rows * (rows - 1) // 2,
    }
    assert blocks.runs(7) == [Run(0, 7, Coverage.FULL), Run(7, 8, Coverage.PARTIAL)]
    assert length <= largest <= 4 * length


def test_a_long_window_over_packed_documents_needs_a_few_numbers_a_token() -> None:
    length = 131_072
    documents = rg.Document.from_lengths([1021] * 128 + [384])
    mask = rg.Causal() & documents & rg.SlidingWindow(4095)
    blocks, largest = made(lambda: mask.blocks(length, length, (128, 128)))
    assert largest <= 4 * length
    assert blocks.counts()[Coverage.PARTIAL] + blocks.counts()[Coverage.FULL] < 10 * 1024
    corner = mask.dense(256, 256)
    assert blocks.grid()[0, 0, :2, :2].equal(classified(corner, (128, 128))[0, 0])


def test_the_order_of_coverages_is_that_of_and_and_or() -> None:
    assert Coverage.EMPTY < Coverage.PARTIAL < Coverage.FULL

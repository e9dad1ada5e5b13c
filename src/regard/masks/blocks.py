"""A mask at the resolution of blocks: which tiles of the score tensor are EMPTY, PARTIAL or FULL.

Kept as runs of equal blocks, not as a grid: causal attention over a million tokens has two runs a block row, so its
block structure needs memory of the order of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from regard.masks.intervals import RowIntervals


class Coverage(IntEnum):
    """How much of a block may attend. The order makes ``&`` the minimum and ``|`` the maximum of two coverages."""

    EMPTY = 0
    PARTIAL = 1
    FULL = 2


class Run(NamedTuple):
    """Neighbouring blocks ``start <= block < stop`` of one block row with the same coverage."""

    start: int
    stop: int
    coverage: Coverage


@dataclass(frozen=True, eq=False)
class BlockMap:
    """The runs of PARTIAL and FULL blocks of every block row; whatever no run names is EMPTY.

    In a ragged last block, FULL and EMPTY speak of the pairs that exist.

    Attributes:
        q_len: number of queries.
        k_len: number of keys.
        block: rows and columns of a block.
        batch: 1 when the mask is the same for the whole batch.
        heads: 1 when the mask is the same for every head.
        offsets: int64 ``(batch * heads * block_rows + 1,)``: where each block row's runs begin.
        starts: int64, first block of each run.
        stops: int64, the block after each run.
        kinds: uint8, `Coverage` of each run.
    """

    q_len: int
    k_len: int
    block: tuple[int, int]
    batch: int
    heads: int
    offsets: Tensor
    starts: Tensor
    stops: Tensor
    kinds: Tensor

    @property
    def block_rows(self) -> int:
        """Number of block rows."""
        return -(-self.q_len // self.block[0])

    @property
    def block_cols(self) -> int:
        """Number of block columns."""
        return -(-self.k_len // self.block[1])

    def runs(self, block_row: int, batch: int = 0, head: int = 0) -> list[Run]:
        """The runs of one block row, left to right.

        >>> from regard.masks import Causal
        >>> Causal().blocks(256, 256).runs(2)
        [Run(start=0, stop=2, coverage=<Coverage.FULL: 2>), Run(start=2, stop=3, coverage=<Coverage.PARTIAL: 1>)]
        """
        b = batch if self.batch > 1 else 0
        h = head if self.heads > 1 else 0
        row = (b * self.heads + h) * self.block_rows + block_row
        first, last = int(self.offsets[row]), int(self.offsets[row + 1])
        columns = (x[first:last].tolist() for x in (self.starts, self.stops, self.kinds))
        return [Run(a, b, Coverage(kind)) for a, b, kind in zip(*columns, strict=True)]

    def __iter__(self) -> Iterator[tuple[int, int, int, list[Run]]]:
        """Every block row as ``(batch, head, block_row, runs)``."""
        offsets, starts = self.offsets.tolist(), self.starts.tolist()
        stops, kinds = self.stops.tolist(), self.kinds.tolist()
        for row in range(len(offsets) - 1):
            index, block_row = divmod(row, self.block_rows)
            inside = range(offsets[row], offsets[row + 1])
            yield (
                *divmod(index, self.heads),
                block_row,
                [Run(starts[r], stops[r], Coverage(kinds[r])) for r in inside],
            )

    def grid(self) -> Tensor:
        """The coverage of every block, uint8 ``(batch, heads, block_rows, block_cols)``."""
        rows = self.batch * self.heads * self.block_rows
        step = torch.zeros((rows, self.block_cols + 1), dtype=torch.int8, device=self.starts.device)
        of_run = torch.repeat_interleave(torch.arange(rows, device=self.starts.device), self.offsets.diff())
        kinds = self.kinds.to(torch.int8)
        step.index_put_((of_run, self.starts), kinds, accumulate=True)
        step.index_put_((of_run, self.stops), -kinds, accumulate=True)
        grid = step.cumsum(1, dtype=torch.int8)[:, :-1].to(torch.uint8)
        return grid.view(self.batch, self.heads, self.block_rows, self.block_cols)

    def counts(self) -> dict[Coverage, int]:
        """How many blocks there are of each coverage."""
        width = self.stops - self.starts
        partial = int(width[self.kinds == Coverage.PARTIAL].sum())
        full = int(width[self.kinds == Coverage.FULL].sum())
        total = self.batch * self.heads * self.block_rows * self.block_cols
        return {Coverage.EMPTY: total - partial - full, Coverage.PARTIAL: partial, Coverage.FULL: full}

    def __repr__(self) -> str:
        shape = f"{self.q_len} x {self.k_len} in blocks of {self.block[0]} x {self.block[1]}"
        counts = ", ".join(f"{n} {kind.name}" for kind, n in self.counts().items())
        return f"<BlockMap {shape}: {counts}>"


def from_intervals(rows: RowIntervals, q_len: int, block: tuple[int, int]) -> BlockMap:
    """The exact block map of a mask in row-interval form, in time and memory of the order of its rows."""
    k_len = rows.k_len
    batch = rows.start.shape[0]
    touched = _touched(rows, q_len, block)
    open_somewhere = _touched(rows.complement(), q_len, block)
    n_rows, n_cols = batch * -(-q_len // block[0]), -(-k_len // block[1])
    return _from_events(touched, open_somewhere, n_rows, n_cols, (q_len, k_len, block, batch, 1))


def from_grid(grid: Tensor, q_len: int, k_len: int, block: tuple[int, int]) -> BlockMap:
    """The block map of a uint8 grid ``(batch, heads, block_rows, block_cols)`` of coverages."""
    batch, heads, n_rows, n_cols = grid.shape
    flat = grid.reshape(batch * heads * n_rows, n_cols)
    change = torch.ones((flat.shape[0], n_cols + 1), dtype=torch.bool, device=grid.device)
    change[:, 1:-1] = flat[:, 1:] != flat[:, :-1]
    if n_cols == 0:
        change[:] = False
    row, column = change.nonzero(as_tuple=True)
    begins = column < n_cols
    next_column = column.roll(-1)
    row, start, stop = row[begins], column[begins], next_column[begins]
    kind = flat[row, start] if n_cols else row.to(torch.uint8)
    keep = kind != Coverage.EMPTY
    return _packed(row[keep], start[keep], stop[keep], kind[keep], flat.shape[0], (q_len, k_len, block, batch, heads))


_Segments = tuple[Tensor, Tensor, Tensor]
_Sizes = tuple[int, int, tuple[int, int], int, int]


def _touched(rows: RowIntervals, q_len: int, block: tuple[int, int]) -> _Segments:
    """Block row, first block and end of the disjoint runs of blocks that at least one row's intervals touch."""
    block_q, block_k = block
    batch, _, n = rows.start.shape
    n_rows = -(-q_len // block_q)
    far = -(-rows.k_len // block_k) + 1
    empty = rows.start >= rows.stop
    first = torch.where(empty, far, rows.start // block_k)
    last = torch.where(empty, far, (rows.stop + block_k - 1) // block_k)
    ragged = n_rows * block_q - q_len
    first, last = (torch.nn.functional.pad(x, (0, 0, 0, ragged), value=far) for x in (first, last))
    first, last = (x.reshape(batch * n_rows, block_q * n) for x in (first, last))
    if first.numel() == 0:
        nothing = torch.zeros(0, dtype=torch.int64, device=first.device)
        return nothing, nothing, nothing
    first, order = first.sort(1)
    reach = last.gather(1, order).cummax(1).values
    real = first < far
    opens = real.clone()
    opens[:, 1:] &= first[:, 1:] > reach[:, :-1]
    closes = real.clone()
    closes[:, :-1] &= opens[:, 1:] | ~real[:, 1:]
    return opens.nonzero(as_tuple=True)[0], first[opens], reach[closes]


def _from_events(touched: _Segments, open_: _Segments, n_rows: int, n_cols: int, sizes: _Sizes) -> BlockMap:
    """Sweep both sets of runs over each block row: touched and never open is FULL, touched and open PARTIAL."""
    width = n_cols + 1
    keys, deltas = [], []
    for (row, start, stop), which in ((touched, 0), (open_, 1)):
        step = torch.zeros((len(row), 2), dtype=torch.int64, device=row.device)
        step[:, which] = 1
        keys += [row * width + start, row * width + stop]
        deltas += [step, -step]
    key, inverse = torch.cat(keys).unique(return_inverse=True)
    change = torch.zeros((len(key), 2), dtype=torch.int64, device=key.device).index_add_(0, inverse, torch.cat(deltas))
    state = change.cumsum(0) > 0
    keep = state[:, 0]
    if not len(key):
        keep = keep[:0]
    start, stop = key, key.roll(-1)
    row = start // width
    kind = torch.where(state[:, 1], int(Coverage.PARTIAL), int(Coverage.FULL)).to(torch.uint8)
    starts, stops = start[keep] % width, stop[keep] - row[keep] * width
    return _packed(row[keep], starts, stops, kind[keep], n_rows, sizes)


def _packed(row: Tensor, start: Tensor, stop: Tensor, kind: Tensor, n_rows: int, sizes: _Sizes) -> BlockMap:
    offsets = torch.zeros(n_rows + 1, dtype=torch.int64, device=row.device)
    offsets[1:] = torch.bincount(row, minlength=n_rows).cumsum(0)
    return BlockMap(*sizes, offsets, start, stop, kind)

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
    block_q, block_k = block
    start, stop = (_by_block_row(x, block_q) for x in (rows.start, rows.stop))
    n_rows, n_cols = start.shape[0], -(-rows.k_len // block_k)
    # Runs of all block rows lie on one line, each block row in a stretch of its own.
    line = torch.arange(n_rows, device=start.device) * (n_cols + 1)
    seen = _united([_ranges(line, start, stop, block_k)])
    before, after = start[..., 0].amax(1), stop[..., -1].amin(1)
    hidden = _united(
        [
            (line, line + _ceil(before, block_k)),
            _ranges(line, stop[..., :-1], start[..., 1:], block_k),
            (line + torch.where(after < rows.k_len, after // block_k, n_cols), line + n_cols),
        ]
    )
    edges = torch.cat([*seen, *hidden]).unique()
    inside = _holds(seen, edges)
    begin, end = edges[inside], edges.roll(-1)[inside]
    kind = torch.where(_holds(hidden, begin), int(Coverage.PARTIAL), int(Coverage.FULL)).to(torch.uint8)
    row = begin // (n_cols + 1)
    sizes = (q_len, rows.k_len, block, rows.start.shape[0], 1)
    return _packed(row, begin - line[row], end - line[row], kind, n_rows, sizes)


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


_Runs = tuple[Tensor, Tensor]
_Sizes = tuple[int, int, tuple[int, int], int, int]


def _ceil(x: Tensor, step: int) -> Tensor:
    return (x + (step - 1)) // step


def _by_block_row(bound: Tensor, block_q: int) -> Tensor:
    """``(batch, q_len, n)`` as ``(batch * block_rows, block_q, n)``."""
    batch, q_len, n = bound.shape
    ragged = -q_len % block_q
    if ragged:
        # A row more than once changes neither what some row sees nor what every row sees.
        bound = torch.cat([bound, bound[:, -1:].expand(batch, ragged, n)], 1)
    return bound.reshape(batch * ((q_len + ragged) // block_q), block_q, n)


def _ranges(line: Tensor, start: Tensor, stop: Tensor, block_k: int) -> _Runs:
    """Ranges of blocks on the line whose union is all that the columns ``start <= j < stop`` touch.

    Where the ranges of a block row's rows overlap or touch one after another, as they do for nearly every mask in use,
    one range from the first column to the last replaces them.
    """
    block_q = start.shape[1]
    linked = torch.maximum(start[:, 1:], start[:, :-1]) <= torch.minimum(stop[:, 1:], stop[:, :-1])
    chained = linked.all(1)
    place = line[:, None].expand(chained.shape)
    low, high = start.amin(1), stop.amax(1)
    if not bool(chained.all()):
        loose = ~chained
        place = torch.cat([place[chained], place[loose].repeat_interleave(block_q)])
        low = torch.cat([low[chained], start.mT[loose].flatten()])
        high = torch.cat([high[chained], stop.mT[loose].flatten()])
    some = low < high
    return (place + low // block_k)[some], (place + _ceil(high, block_k))[some]


def _united(ranges: list[_Runs]) -> _Runs:
    """The union of ranges on the line as ascending runs that neither overlap nor touch."""
    start, stop = (torch.cat([r[side] for r in ranges]) for side in (0, 1))
    some = start < stop
    start, order = start[some].sort()
    reach = stop[some][order].cummax(0).values
    apart = start[1:] > reach[:-1]
    ends = torch.ones(min(len(start), 1), dtype=torch.bool, device=start.device)
    return start[torch.cat([ends, apart])], reach[torch.cat([apart, ends])]


def _holds(runs: _Runs, place: Tensor) -> Tensor:
    """Whether each place of the line lies in one of the runs."""
    start, stop = runs
    return torch.searchsorted(start, place, right=True) > torch.searchsorted(stop, place, right=True)


def _packed(row: Tensor, start: Tensor, stop: Tensor, kind: Tensor, n_rows: int, sizes: _Sizes) -> BlockMap:
    offsets = torch.zeros(n_rows + 1, dtype=torch.int64, device=row.device)
    offsets[1:] = torch.bincount(row, minlength=n_rows).cumsum(0)
    return BlockMap(*sizes, offsets, start, stop, kind)

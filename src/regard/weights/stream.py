"""One pass over the weights, tile by tile: nothing of size Lq x Lk is ever held.

A tile holds the scores of every head for a block of rows and a range of columns that the mask does not leave EMPTY.
Tiles come row block by row block, and within one from left to right. Whatever is asked of the weights is a `Reduction`
that is shown each tile once, so that many of them share one pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates
from regard.backends.tile import exp_, scores
from regard.masks import BlockMap, Coverage, Everything, Mask
from regard.masks.blocks import Run
from regard.weights.part import finite

BLOCK = (128, 128)
"""Rows and columns of the blocks of which EMPTY ones are left out."""

TILE = 1 << 20
"""Scores of a tile, where one block of every head is not more already."""

WIDE = 1024
"""Columns of a tile before it takes in another batch entry."""


@dataclass(frozen=True, eq=False)
class Tile:
    """The box ``batch x all heads x rows x cols`` of the score tensor.

    Attributes:
        at: where the tile stands.
        s: final scores ``(b, H, r, c)``, ``-inf`` where hidden.
        lse: of the rows, ``(b, H, r, 1)``, 0 for rows that see nothing.
    """

    batch: slice
    rows: slice
    cols: slice
    at: Coordinates
    s: Tensor
    lse: Tensor

    @cached_property
    def weights(self) -> Tensor:
        """``exp(s - lse)``, 0 where hidden."""
        return exp_(self.s - self.lse)

    def of_rows(self, x: Tensor) -> Tensor:
        """The part of ``x (B, H, Lq, …)`` that belongs to the tile's rows, as a view."""
        return x[self.batch, :, self.rows]


class Reduction(ABC):
    """A quantity of the weights gathered tile by tile; made anew for every pass."""

    @abstractmethod
    def update(self, tile: Tile) -> None:
        """Take in one tile."""

    @abstractmethod
    def finish(self, lse: Tensor) -> Tensor:
        """The result after the last tile, given ``lse (B, H, Lq)`` of all rows, 0 for those that see nothing."""


@torch.no_grad()
def stream(
    call: Call,
    lse: Tensor,
    reductions: Sequence[Reduction],
    *,
    rows: range | None = None,
    within: Mask | None = None,
) -> list[Tensor]:
    """Show every tile to every reduction and return what they make of it.

    Args:
        call: what the weights are of.
        lse: ``(B, H, Lq)``.
        reductions: fresh ones.
        rows: the rows to visit, from its start to its stop whatever its step; default: all.
        within: a mask outside of which the reductions need nothing; default: the call's own.
    """
    rows = range(call.q.shape[2]) if rows is None else rows
    lse = finite(lse)
    unmasked = call.with_(mask=Everything())
    for batch, row_slice, col_slice, full in _boxes(call, call.mask if within is None else within, rows):
        at = call.frame.tile(row_slice, col_slice, batch)
        q = call.q[batch, :, row_slice].to(call.accumulation_dtype)
        k = call.k[batch, :, col_slice].to(call.accumulation_dtype)
        s = scores(unmasked if full and within is None else call, at, q, k)
        tile = Tile(batch, row_slice, col_slice, at, s, lse[batch, :, row_slice, None])
        for reduction in reductions:
            reduction.update(tile)
    return [reduction.finish(lse) for reduction in reductions]


def _boxes(call: Call, mask: Mask, rows: range) -> Iterator[tuple[slice, slice, slice, bool]]:
    """Batch entries, rows and columns of the tiles that the mask does not leave EMPTY, and whether it leaves them FULL.

    As large as `TILE` allows.
    """
    batch_size, heads, k_len = call.q.shape[0], call.q.shape[1], call.k.shape[2]
    if not (batch_size and heads and k_len and len(rows)):
        return
    blocks = mask.block_map(call.frame, BLOCK)
    height, width = BLOCK
    strip = heads * height
    entries = min(max(TILE // (strip * WIDE), 1), batch_size)
    widest = max(TILE // (strip * entries) // width, 1) * width
    for start in range(0, batch_size, entries):
        batch = slice(start, min(start + entries, batch_size))
        for block_row in range(rows.start // height, -(-rows.stop // height)):
            visited = slice(max(block_row * height, rows.start), min((block_row + 1) * height, rows.stop))
            for run in _runs(blocks, block_row, batch):
                stop = min(run.stop * width, k_len)
                for column in range(run.start * width, stop, widest):
                    columns = slice(column, min(column + widest, stop))
                    yield batch, visited, columns, run.coverage is Coverage.FULL


def _runs(blocks: BlockMap, block_row: int, batch: slice) -> list[Run]:
    """The runs of blocks that are not EMPTY for some head of some of the batch entries, left to right."""
    entries = range(batch.start, batch.stop) if blocks.batch > 1 else range(1)
    maps = [blocks.runs(block_row, b, h) for b, h in product(entries, range(blocks.heads))]
    if len(maps) == 1:
        return maps[0]
    joined: list[Run] = []
    for start, stop, _ in sorted(run for runs in maps for run in runs):
        if joined and start <= joined[-1].stop:
            joined[-1] = joined[-1]._replace(stop=max(joined[-1].stop, stop))
        else:
            joined.append(Run(start, stop, Coverage.PARTIAL))
    return joined

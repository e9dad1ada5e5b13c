"""The tiles of a step: how its rows and columns are cut out of the operands, and put back.

A slab's tiles are views of the operands. A gather's are copies set side by side, or, for a regular band of row blocks,
strided views.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates, Frame
from regard.backends.tile import hide_


class Chunk(NamedTuple):
    """Columns ``start <= j < stop`` of a slab, and the parts of them where the mask has to be asked."""

    start: int
    stop: int
    masked: tuple[tuple[int, int], ...]


class Step(ABC):
    """Rows that are computed together, and the chunks of keys that they read one after another.

    A tile has the shape ``(n, H or some heads, rows, columns of the chunk)``.
    """

    chunks: tuple[Chunk, ...]
    heads: slice

    @abstractmethod
    def queries(self, x: Tensor, beyond: float = 0) -> Tensor:
        """The rows of ``x (B, H, Lq, …)``; ``beyond`` fills the rows of a tile that no query has."""

    @abstractmethod
    def keys(self, x: Tensor, chunk: Chunk) -> Tensor:
        """The columns of ``x (B, Hkv, Lk, D)``."""

    @abstractmethod
    def store(self, x: Tensor, tile: Tensor) -> None:
        """Write the rows of ``x (B, H, Lq, …)``."""

    @abstractmethod
    def add(self, x: Tensor, chunk: Chunk, tile: Tensor) -> None:
        """Add to the columns of ``x (B, Hkv, Lk, D)``."""

    @abstractmethod
    def at(self, frame: Frame, chunk: Chunk) -> Coordinates:
        """Where the tile of a chunk stands."""

    @abstractmethod
    def hide(self, s: Tensor, call: Call, chunk: Chunk) -> Tensor:
        """Set hidden scores to ``-inf``, in place."""

    @abstractmethod
    def allowed(self, call: Call, chunk: Chunk) -> Tensor | None:
        """Which pairs of the tile are visible, or None when all are."""


@dataclass(frozen=True)
class Slab(Step):
    """Consecutive rows of some batch entries and heads, which all read the same key chunks. Its tiles are views."""

    batch: slice
    kv_heads: slice
    heads: slice
    rows: slice
    chunks: tuple[Chunk, ...]

    def queries(self, x: Tensor, beyond: float = 0) -> Tensor:
        return x[self.batch, self.heads, self.rows]

    def keys(self, x: Tensor, chunk: Chunk) -> Tensor:
        return x[self.batch, self.kv_heads, chunk.start : chunk.stop]

    def store(self, x: Tensor, tile: Tensor) -> None:
        x[self.batch, self.heads, self.rows] = tile

    def add(self, x: Tensor, chunk: Chunk, tile: Tensor) -> None:
        x[self.batch, self.kv_heads, chunk.start : chunk.stop] += tile

    def at(self, frame: Frame, chunk: Chunk) -> Coordinates:
        return frame.tile(self.rows, slice(chunk.start, chunk.stop), self.batch, self.heads)

    def hide(self, s: Tensor, call: Call, chunk: Chunk) -> Tensor:
        for first, last in chunk.masked:
            at = call.frame.tile(self.rows, slice(first, last), self.batch, self.heads)
            part = s[..., first - chunk.start : last - chunk.start]
            hide_(part, call.mask.allowed(at), call)
        return s

    def allowed(self, call: Call, chunk: Chunk) -> Tensor | None:
        return call.mask.allowed(self.at(call.frame, chunk)) if chunk.masked else None


class Item(NamedTuple):
    """One row block of one batch entry, with the column ranges it reads."""

    entry: int
    row: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def columns(self) -> int:
        """How many columns the ranges hold."""
        return sum(stop - start for start, stop in self.ranges)


@dataclass(frozen=True)
class Gather(Step):
    """Several row blocks, each with columns of its own, copied side by side; every head; one chunk."""

    items: tuple[Item, ...]
    row_count: int
    q_len: int
    columns: int
    chunks: tuple[Chunk, ...]
    heads: slice

    def queries(self, x: Tensor, beyond: float = 0) -> Tensor:
        if self._step is not None:
            return self._banded_rows(x)
        shape = (len(self.items), x.shape[1], self.row_count, *x.shape[3:])
        tile = torch.full(shape, beyond, dtype=x.dtype, device=x.device)
        for n, item in enumerate(self.items):
            rows = x[item.entry, :, item.row : item.row + self.row_count]
            tile[n, :, : rows.shape[1]] = rows
        return tile

    def keys(self, x: Tensor, chunk: Chunk) -> Tensor:
        if self._step is not None:
            entry, _, ranges = self.items[0]
            stop = self.items[-1].ranges[0][1]
            return x[entry, :, ranges[0][0] : stop].unfold(1, self.columns, self._step).permute(1, 0, 3, 2)
        tile = torch.zeros((len(self.items), x.shape[1], self.columns, x.shape[3]), dtype=x.dtype, device=x.device)
        for n, item in enumerate(self.items):
            place = 0
            for start, stop in item.ranges:
                tile[n, :, place : place + stop - start] = x[item.entry, :, start:stop]
                place += stop - start
        return tile

    def store(self, x: Tensor, tile: Tensor) -> None:
        if self._step is not None:
            self._banded_rows(x).copy_(tile)
            return
        for n, item in enumerate(self.items):
            rows = x[item.entry, :, item.row : item.row + self.row_count]
            rows.copy_(tile[n, :, : rows.shape[1]])

    def add(self, x: Tensor, chunk: Chunk, tile: Tensor) -> None:
        for n, item in enumerate(self.items):
            place = 0
            for start, stop in item.ranges:
                x[item.entry, :, start:stop] += tile[n, :, place : place + stop - start]
                place += stop - start

    def at(self, frame: Frame, chunk: Chunk) -> Coordinates:
        """Where each pair stands; columns past an item's own repeat column 0, and `hide` hides them."""
        device = frame.device
        b = torch.tensor([item.entry for item in self.items], device=device)[:, None, None, None]
        h = torch.arange(frame.heads, device=device)[:, None, None]
        first = torch.tensor([item.row for item in self.items], device=device)
        i = (first[:, None] + torch.arange(self.row_count, device=device)).clamp(max=self.q_len - 1)
        j = self._columns[0].to(device)[:, None, None, :]
        return frame.at(b, h, i[:, None, :, None], j)

    def hide(self, s: Tensor, call: Call, chunk: Chunk) -> Tensor:
        return hide_(s, self.allowed(call, chunk), call)

    def allowed(self, call: Call, chunk: Chunk) -> Tensor:
        real = self._columns[1].to(call.q.device)[:, None, None, :]
        return call.mask.allowed(self.at(call.frame, chunk)) & real

    @cached_property
    def _step(self) -> int | None:
        """How far each item's columns lie behind those of the item before, if the items form a regular band.

        Neighbouring row blocks of a window are such a band: their tiles are then strided views, not copies.
        """
        first = self.items[0]
        last = self.items[-1]
        if len(self.items) < 2 or last.row + self.row_count > self.q_len:
            return None
        step = self.items[1].ranges[0][0] - first.ranges[0][0]
        for n, (entry, row, ranges) in enumerate(self.items):
            start = first.ranges[0][0] + n * step
            if (entry, row) != (first.entry, first.row + n * self.row_count) or step < 1:
                return None
            if ranges != ((start, start + self.columns),):
                return None
        return step

    def _banded_rows(self, x: Tensor) -> Tensor:
        entry, row, _ = self.items[0]
        rows = x[entry, :, row : row + len(self.items) * self.row_count]
        return rows.view(rows.shape[0], len(self.items), self.row_count, *rows.shape[2:]).transpose(0, 1)

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor]:
        """The column of each place, and whether the place is an item's own."""
        column = torch.zeros((len(self.items), self.columns), dtype=torch.int64, device="cpu")
        real = torch.zeros((len(self.items), self.columns), dtype=torch.bool, device="cpu")
        for n, item in enumerate(self.items):
            place = 0
            for start, stop in item.ranges:
                column[n, place : place + stop - start] = torch.arange(start, stop, device="cpu")
                place += stop - start
            real[n, :place] = True
        return column, real

"""The keys of each query row as a few intervals of columns, and their algebra.

With ascending key positions, causal, window, contiguous documents, prefix, padding and any ``&`` of them leave each
row one interval; ``|`` of two of them, or the rotated positions of a ring buffer, at most two. A row's intervals are
half-open, sorted, disjoint and not adjacent; the empty ones come last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard._coordinates import Frame

MAX_INTERVALS = 4
"""Beyond this many intervals a row, an expression has no interval form and is classified block by block."""


@dataclass(frozen=True, eq=False)
class RowIntervals:
    """Columns ``start <= j < stop`` of each row; an empty interval is ``(k_len, k_len)``.

    Attributes:
        start: int64 ``(B or 1, q_len, n)``.
        stop: int64 ``(B or 1, q_len, n)``.
        k_len: number of columns.
    """

    start: Tensor
    stop: Tensor
    k_len: int

    @property
    def per_row(self) -> int:
        """The largest number of intervals a row may have."""
        return self.start.shape[-1]

    def complement(self) -> RowIntervals:
        """The columns that are not in these intervals; one interval a row more."""
        edge = self.start.new_zeros((*self.start.shape[:-1], 1))
        start = torch.cat([edge, self.stop], -1)
        stop = torch.cat([self.start, edge + self.k_len], -1)
        # Empty intervals sit at the end as (k_len, k_len), so their complement is empty there too.
        return _canonical(start, stop, self.k_len, self.per_row + 1)

    def intersect(self, other: RowIntervals) -> RowIntervals:
        """The columns in both."""
        start = torch.maximum(self.start[..., :, None], other.start[..., None, :]).flatten(-2)
        stop = torch.minimum(self.stop[..., :, None], other.stop[..., None, :]).flatten(-2)
        return _canonical(start, stop, self.k_len, self.per_row + other.per_row - 1)

    def unite(self, other: RowIntervals) -> RowIntervals:
        """The columns in either."""
        rows = torch.broadcast_shapes(self.start.shape[:-1], other.start.shape[:-1])
        start = torch.cat([x.start.expand(*rows, -1) for x in (self, other)], -1)
        stop = torch.cat([x.stop.expand(*rows, -1) for x in (self, other)], -1)
        return _canonical(start, stop, self.k_len, self.per_row + other.per_row)

    def narrow(self) -> RowIntervals:
        """The same intervals with as few slots a row as the fullest row needs (at least one)."""
        if self.per_row == 1:
            return self
        used = int((self.start < self.stop).sum(-1).amax()) if self.start.numel() else 0
        n = max(used, 1)
        return RowIntervals(self.start[..., :n], self.stop[..., :n], self.k_len)

    def seen_keys(self) -> Tensor:
        """Bool ``(B or 1, k_len)``: the columns that at least one row holds."""
        batch = self.start.shape[0]
        step = self.start.new_zeros((batch, self.k_len + 1))
        step.scatter_add_(1, self.start.reshape(batch, -1), torch.ones_like(self.start).reshape(batch, -1))
        step.scatter_add_(1, self.stop.reshape(batch, -1), -torch.ones_like(self.stop).reshape(batch, -1))
        return step.cumsum(1)[:, :-1] > 0

    def seeing_rows(self) -> Tensor:
        """Bool ``(B or 1, q_len)``: the rows that hold at least one column."""
        return (self.start < self.stop).any(-1)

    def dense(self) -> Tensor:
        """Bool ``(B or 1, 1, q_len, k_len)``."""
        j = torch.arange(self.k_len, device=self.start.device)
        inside = (self.start[..., None] <= j) & (j < self.stop[..., None])
        return inside.any(-2)[:, None]


def full_rows(frame: Frame) -> RowIntervals:
    """Every row holds every column."""
    start = torch.zeros((1, frame.q_len, 1), dtype=torch.int64, device=frame.device)
    return RowIntervals(start, start + frame.k_len, frame.k_len)


def position_range(frame: Frame, low: Tensor | int | None, high: Tensor | int | None) -> RowIntervals | None:
    """The columns whose key position ``p`` satisfies ``low <= p < high``.

    Args:
        frame: sizes and positions of the call.
        low: int64 broadcastable to ``(B, q_len)``, or None for no lower bound.
        high: the same for the upper bound.

    Returns:
        None when the key positions are neither ascending nor ascending in two runs (a ring buffer's).
    """
    shape = (1, frame.q_len)
    if frame.k_positions is None:
        ends = [_clamped(x, side, frame, shape) for x, side in ((low, 0), (high, frame.k_len))]
        start, stop = torch.broadcast_tensors(*ends)
        return _canonical(start[..., None], stop[..., None], frame.k_len, 1)
    runs = _ascending_runs(frame.k_positions)
    if runs is None:
        return None
    whole = None
    for keys, first, last in runs:
        start = _search(keys, low, first, frame, shape)
        stop = _search(keys, high, last, frame, shape)
        start, stop = torch.broadcast_tensors(start.clamp(first, last), stop.clamp(first, last))
        part = _canonical(start[..., None], stop[..., None], frame.k_len, 1)
        whole = part if whole is None else whole.unite(part)
    return whole


def column_runs(valid: Tensor, frame: Frame) -> RowIntervals | None:
    """The runs of true columns of ``valid``, bool ``(B or 1, k_len)``, the same for every row.

    Returns:
        None when a batch entry has more than `MAX_INTERVALS` runs.
    """
    batch, k_len = valid.shape
    edges = torch.nn.functional.pad(valid.to(torch.int8), (1, 1)).diff(dim=1)
    counts = (edges == 1).sum(1)
    n = int(counts.amax()) if batch else 0
    if n > MAX_INTERVALS:
        return None
    slots = torch.full((2, batch, max(n, 1)), k_len, dtype=torch.int64, device=valid.device)
    for side, sign in enumerate((1, -1)):
        entry, column = (edges == sign).nonzero(as_tuple=True)
        first = counts.cumsum(0) - counts
        slot = torch.arange(len(entry), device=valid.device) - first[entry]
        slots[side, entry, slot] = column
    start, stop = (s[:, None].expand(batch, frame.q_len, -1) for s in slots)
    return RowIntervals(start, stop, k_len)


def _clamped(bound: Tensor | int | None, default: int, frame: Frame, shape: tuple[int, ...]) -> Tensor:
    value = default if bound is None else bound
    if isinstance(value, Tensor):
        return value.clamp(0, frame.k_len).expand(torch.broadcast_shapes(value.shape, shape))
    return torch.full(shape, min(max(value, 0), frame.k_len), dtype=torch.int64, device=frame.device)


def _ascending_runs(positions: Tensor) -> list[tuple[Tensor, Tensor, Tensor]] | None:
    """``positions (B, L)`` as one or two ascending runs: sorted keys to search, first and last column of the run."""
    length = positions.shape[1]
    descents = positions.diff(dim=1) < 0
    per_entry = descents.sum(1)
    most = int(per_entry.amax()) if positions.numel() and length > 1 else 0
    if most == 0:
        first = torch.zeros((1, 1), dtype=torch.int64, device=positions.device)
        return [(positions, first, first + length)]
    if most > 1:
        return None
    split = torch.where(per_entry > 0, descents.to(torch.int8).argmax(1) + 1, length)[:, None]
    column = torch.arange(length, device=positions.device)
    limits = torch.iinfo(torch.int64)
    before = torch.where(column < split, positions, limits.max)
    after = torch.where(column < split, limits.min, positions)
    return [(before, torch.zeros_like(split), split), (after, split, torch.full_like(split, length))]


def _search(keys: Tensor, bound: Tensor | int | None, default: Tensor, frame: Frame, shape: tuple[int, ...]) -> Tensor:
    """The first column of ascending ``keys`` whose position is at least ``bound``; ``default`` without a bound."""
    if bound is None:
        return default.expand(torch.broadcast_shapes(default.shape, shape))
    value = bound if isinstance(bound, Tensor) else torch.full(shape, bound, dtype=torch.int64, device=frame.device)
    batch = max(keys.shape[0], value.shape[0])
    value = value.expand(batch, frame.q_len).contiguous()
    return torch.searchsorted(keys.expand(batch, -1).contiguous(), value)


def _canonical(start: Tensor, stop: Tensor, k_len: int, slots: int) -> RowIntervals:
    """Sort, merge what overlaps or touches, drop what is empty, and keep ``slots`` intervals a row."""
    empty = start >= stop
    start = torch.where(empty, k_len, start)
    stop = torch.where(empty, k_len, stop)
    n = start.shape[-1]
    if n > 1:
        start, order = start.sort(dim=-1, stable=True)
        stop = stop.gather(-1, order)
        reach = stop.cummax(-1).values
        # An interval opens a new one unless the reach of those before it touches it.
        opens = torch.ones_like(start, dtype=torch.bool)
        opens[..., 1:] = start[..., 1:] > reach[..., :-1]
        opens &= start < stop
        closes = torch.ones_like(opens)
        closes[..., :-1] = opens[..., 1:] | (start[..., 1:] >= k_len)
        closes &= start < stop
        start = torch.where(opens, start, k_len).sort(-1).values[..., :slots]
        stop = torch.where(closes, reach, k_len).sort(-1).values[..., :slots]
    return RowIntervals(start, stop, k_len)

"""What one pass over the weights can gather. Each is the exact value of its dense definition, given first."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates, Frame
from regard.masks import Mask
from regard.masks.intervals import RowIntervals, position_range
from regard.weights.stream import Reduction, Tile


class Entropy(Reduction):
    """``-Σ_j w_ij log w_ij``, with the sink as one more outcome: ``(B, H, Lq)``, in nats."""

    def __init__(self, call: Call) -> None:
        self._sinks = call.sinks
        self.sum = _rows(call, 0)

    def update(self, tile: Tile) -> None:
        tile.of_rows(self.sum).add_(_outcomes(tile.weights, tile.lse - tile.s).sum(-1))

    def finish(self, lse: Tensor) -> Tensor:
        if self._sinks is None:
            return self.sum
        surprise = lse - self._sinks.to(lse.dtype)[:, None]
        return self.sum + _outcomes(torch.exp(-surprise), surprise)


class Max(Reduction):
    """``max_j w_ij``: ``(B, H, Lq)``, 0 for a row that sees nothing."""

    def __init__(self, call: Call) -> None:
        self.top = _rows(call, -torch.inf)

    def update(self, tile: Tile) -> None:
        top = tile.of_rows(self.top)
        torch.maximum(top, tile.s.amax(-1), out=top)

    def finish(self, lse: Tensor) -> Tensor:
        return torch.exp(self.top - lse)


class MaxLogit(Max):
    """``max_ij s_ij`` over what is visible: ``(B, H)``, ``-inf`` for a head that sees nothing."""

    def finish(self, lse: Tensor) -> Tensor:
        return self.top.amax(-1) if self.top.shape[-1] else self.top.new_full(self.top.shape[:-1], -torch.inf)


class Received(Reduction):
    """``Σ_i w_ij`` over the chosen rows: ``(B, H, Lk)``."""

    def __init__(self, call: Call, rows: range | None = None) -> None:
        self._rows = rows
        self.sum = call.q.new_zeros((*call.q.shape[:2], call.k.shape[2]), dtype=call.accumulation_dtype)

    def update(self, tile: Tile) -> None:
        weights = tile.weights
        if self._rows is not None and self._rows.step != 1:
            weights = weights[:, :, (self._rows.start - tile.rows.start) % self._rows.step :: self._rows.step]
        self.sum[tile.batch, :, tile.cols] += weights.sum(-2)

    def finish(self, lse: Tensor) -> Tensor:
        return self.sum


class Segments(Reduction):
    """``Σ_{j: ids_j = n} w_ij``: ``(B, H, Lq, N)``; a negative id is in no segment.

    Args:
        call: what the weights are of.
        ids: int64 ``(1 or B, Lk)``.
    """

    def __init__(self, call: Call, ids: Tensor) -> None:
        self._count = max(int(ids.max()) + 1, 0) if ids.numel() else 0
        # What is in no segment goes to one more, which is cut off at the end.
        self._ids = torch.where(ids < 0, self._count, ids)[:, None, None]
        shape = (*call.q.shape[:3], self._count + 1)
        self._sum = call.q.new_zeros(shape, dtype=call.accumulation_dtype)

    def update(self, tile: Tile) -> None:
        ids = self._ids if self._ids.shape[0] == 1 else self._ids[tile.batch]
        tile.of_rows(self._sum).scatter_add_(-1, ids[..., tile.cols].expand(tile.s.shape), tile.weights)

    def finish(self, lse: Tensor) -> Tensor:
        return self._sum[..., : self._count]


class _Pool(Reduction):
    """A map of ``n x m`` bins; row ``i`` is in bin ``⌊i n / Lq⌋``, column ``j`` in bin ``⌊j m / Lk⌋``."""

    def __init__(self, call: Call, rows: int, cols: int) -> None:
        device = call.q.device
        _, _, q_len, k_len = shape = (*call.q.shape[:3], call.k.shape[2])
        self._row_bin = torch.arange(q_len, device=device) * rows // max(q_len, 1)
        self._col_bin = torch.arange(k_len, device=device) * cols // max(k_len, 1)
        self.map = call.q.new_zeros((*shape[:2], rows, cols), dtype=call.accumulation_dtype)

    def _bins(self, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """The bins of the tile's rows and columns counted from its first ones, and the part of the map they cover."""
        row_bin, col_bin = self._row_bin[tile.rows], self._col_bin[tile.cols]
        first_row, first_col = row_bin[0], col_bin[0]
        covered = self.map[tile.batch, :, first_row : row_bin[-1] + 1, first_col : col_bin[-1] + 1]
        return row_bin - first_row, col_bin - first_col, covered


class MassPool(_Pool):
    """Mean over the queries of a bin, sum over its keys: rows of the map sum to what the rows of the weights sum to."""

    def update(self, tile: Tile) -> None:
        row_bin, col_bin, covered = self._bins(tile)
        b, h, _, c = tile.s.shape
        # Rows first: they lie apart in memory, so adding whole rows is fast and leaves little for the columns.
        by_row = tile.s.new_zeros((b, h, covered.shape[2], c)).index_add_(2, row_bin, tile.weights)
        covered += by_row.new_zeros(covered.shape).index_add_(3, col_bin, by_row)

    def finish(self, lse: Tensor) -> Tensor:
        sizes = self._row_bin.bincount(minlength=self.map.shape[2])
        return self.map.div(sizes[:, None])


class MaxPool(_Pool):
    """The largest weight of a bin, which keeps diagonals and needles visible at any zoom."""

    def update(self, tile: Tile) -> None:
        row_bin, col_bin, covered = self._bins(tile)
        b, h, _, c = tile.s.shape
        by_row = tile.s.new_zeros((b, h, covered.shape[2], c))
        by_row.scatter_reduce_(2, row_bin[:, None].expand(tile.s.shape), tile.weights, "amax")
        covered.scatter_reduce_(3, col_bin.expand(by_row.shape), by_row, "amax")

    def finish(self, lse: Tensor) -> Tensor:
        return self.map


class Offset(Mask):
    """The pairs with ``q - k = offset``."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def allowed(self, at: Coordinates) -> Tensor:
        return at.q - at.k == self.offset

    def intervals(self, frame: Frame) -> RowIntervals | None:
        key = frame.q_pos - self.offset
        return position_range(frame, key, key + 1)

    def _key(self) -> int:
        return self.offset


class Within(Reduction):
    """``Σ_j w_ij`` over the pairs that a mask allows: ``(B, H, Lq)``."""

    def __init__(self, call: Call, mask: Mask) -> None:
        self._mask = mask
        self._sum = _rows(call, 0)

    def update(self, tile: Tile) -> None:
        tile.of_rows(self._sum).add_(torch.where(self._mask.allowed(tile.at), tile.weights, 0).sum(-1))

    def finish(self, lse: Tensor) -> Tensor:
        return self._sum


def _outcomes(weights: Tensor, surprise: Tensor) -> Tensor:
    """``w · (-log w)`` of outcomes, 0 where the weight is 0 and its surprise infinite."""
    return weights * surprise.clamp(max=torch.finfo(surprise.dtype).max)


def _rows(call: Call, value: float) -> Tensor:
    """``(B, H, Lq)`` in the accumulation dtype, filled."""
    return call.q.new_full(call.q.shape[:3], value, dtype=call.accumulation_dtype)

"""The masks and score changes of several calls as those of one: prompt and generated tokens in one map."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard._errors import ShapeError, UnsupportedError, describe
from regard.masks import Causal, Dense, Everything, Mask
from regard.masks.base import check_batch, check_device, summary
from regard.masks.intervals import RowIntervals, column_runs
from regard.recording.restrict import restricted_mask, restricted_score_mod
from regard.scores import Bias, ScoreModification


@dataclass(frozen=True, eq=False)
class Piece:
    """The rows that one call adds to a layer.

    Attributes:
        mask: of the call, for the recorded heads.
        score_mods: likewise.
        frame: of the call, for the recorded heads.
        rows: the recorded rows of the call; None for all.
        offset: the column of the whole at which the call's first key stands.
        cols: the number of the call's keys that have been written.
        present: bool ``(1, k_len)``, the keys that were there, of a frame with more; None for all.
    """

    mask: Mask
    score_mods: tuple[ScoreModification, ...]
    frame: Frame
    rows: Tensor | None
    offset: int
    cols: int
    present: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of recorded rows."""
        return self.frame.q_len if self.rows is None else len(self.rows)

    def first(self, count: int) -> Piece:
        """This piece with its first ``count`` recorded rows."""
        rows = torch.arange(self.frame.q_len, device=self.frame.device) if self.rows is None else self.rows
        return Piece(self.mask, self.score_mods, self.frame, rows[:count], self.offset, self.cols, self.present)


class Intervals(Mask):
    """Columns ``start <= j < stop`` of each row: a mask whose rows were put together from several calls.

    Args:
        start: int64 ``(B or 1, Lq, n)``, ascending; an empty interval is ``(k_len, k_len)``.
        stop: likewise.
        k_len: the number of columns.
    """

    def __init__(self, start: Tensor, stop: Tensor, k_len: int) -> None:
        self.start = start
        self.stop = stop
        self.k_len = k_len

    def allowed(self, at: Coordinates) -> Tensor:
        b = at.b if self.start.shape[0] > 1 else torch.zeros_like(at.b)
        j = at.j[..., None]
        return ((self.start[b, at.i] <= j) & (j < self.stop[b, at.i])).any(-1)

    def intervals(self, frame: Frame) -> RowIntervals:
        return RowIntervals(self.start, self.stop, self.k_len)

    def check(self, frame: Frame) -> None:
        check_device("Intervals' tensors", self.start, frame)
        check_batch("Intervals' tensors", self.start.shape[0], frame)
        if (self.start.shape[1], self.k_len) != (frame.q_len, frame.k_len):
            raise ShapeError(
                f"Intervals are of {self.start.shape[1]} rows and {self.k_len} columns, and the call has "
                f"{frame.q_len} and {frame.k_len}."
            )

    def tensors(self) -> tuple[Tensor, ...]:
        return self.start, self.stop

    @property
    def batch(self) -> int:
        return self.start.shape[0]

    @property
    def extent(self) -> tuple[int | None, int | None]:
        return self.start.shape[1], self.k_len

    def _key(self) -> Hashable:
        return ("Intervals", self.k_len)

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        start, stop = tensors
        return type(self)(start, stop, self.k_len)

    def __repr__(self) -> str:
        return f"Intervals({summary(self.start)}, {summary(self.stop)}, {self.k_len})"


def joined_mask(pieces: Sequence[Piece], frame: Frame) -> Mask:
    """One mask for the rows of all pieces, in a call with the frame ``frame``.

    The mask of one of them, or `Causal`, if that says the same of every row; else the intervals of columns that each
    row sees; else a bool tensor, where a call had no intervals either.
    """
    [first, *more] = pieces
    if not more and first.offset == 0 and first.present is None and first.cols == first.frame.k_len == frame.k_len:
        return restricted_mask(first.mask, None, first.rows)
    rows = _rows_of(pieces, frame.k_len)
    if rows is None:
        return Dense(_stacked([_dense(piece, frame.k_len) for piece in pieces]))
    last = pieces[-1].mask
    for mask in (first.mask, last, Causal(), Causal() & last, Everything()):
        if not mask.tensors() or mask.extent[1] == frame.k_len:
            same = mask.intervals(frame)
            if same is not None and _equal(same.narrow(), rows):
                return mask
    return Intervals(rows.start, rows.stop, rows.k_len)


def joined_score_mods(pieces: Sequence[Piece], k_len: int) -> tuple[ScoreModification, ...]:
    """The score changes of all pieces as those of one call.

    Raises:
        UnsupportedError: calls that change scores in different ways.
    """
    if len({len(piece.score_mods) for piece in pieces}) > 1:
        raise UnsupportedError("calls of one sequence changed scores in different ways, which is not one call.")
    return tuple(_joined_mods(pieces, n, k_len) for n in range(len(pieces[0].score_mods)))


def _joined_mods(pieces: Sequence[Piece], n: int, k_len: int) -> ScoreModification:
    mods = [piece.score_mods[n] for piece in pieces]
    whole = len(pieces) == 1 and pieces[0].offset == 0 and pieces[0].cols == k_len
    if whole or (not isinstance(mods[0], Bias) and all(mod is mods[0] or mod == mods[0] for mod in mods)):
        return restricted_score_mod(mods[0], None, pieces[0].rows)
    tables = [_table(piece, mod, k_len) for piece, mod in zip(pieces, mods, strict=True) if isinstance(mod, Bias)]
    if len(tables) < len(mods):
        raise UnsupportedError(
            f"calls of one sequence changed scores in different ways, {describe(mods[0])} and "
            f"{describe(next(mod for mod in mods if mod is not mods[0]))}, which is not one call."
        )
    return Bias(_stacked(tables))


def _stacked(tables: list[Tensor]) -> Tensor:
    """Tensors ``(1 or B, 1 or H, rows, k_len)`` one below the other."""
    batch, heads = (max(table.shape[dim] for table in tables) for dim in (0, 1))
    return torch.cat([table.expand(batch, heads, -1, -1) for table in tables], 2)


def _table(piece: Piece, mod: Bias, k_len: int) -> Tensor:
    """The bias of a piece's rows for all columns, 0 for those that it did not have and so hides."""
    made = restricted_score_mod(mod, None, piece.rows)
    assert isinstance(made, Bias)
    table = made.bias.reshape((1,) * (4 - made.bias.ndim) + tuple(made.bias.shape))
    table = table.expand(*table.shape[:2], piece.count, piece.frame.k_len)[..., : piece.cols]
    return torch.nn.functional.pad(table, (piece.offset, k_len - piece.offset - piece.cols))


def _rows_of(pieces: Sequence[Piece], k_len: int) -> RowIntervals | None:
    """The columns of every row of every piece, as intervals; None if some piece has none."""
    known: dict[tuple[object, ...], RowIntervals | None] = {}
    found: list[tuple[Tensor, Tensor]] = []
    for piece in pieces:
        # Most calls of a generation are alike: one query, which sees everything.
        default = piece.frame.by_default and piece.frame.q_len == 1 and not piece.mask.tensors()
        key = (piece.mask, piece.frame.k_len) if default else (id(piece),)
        if key not in known:
            known[key] = piece.mask.intervals(piece.frame)
        rows = known[key]
        if rows is not None and piece.present is not None:
            there = column_runs(piece.present, piece.frame)
            rows = None if there is None else rows.intersect(there)
        if rows is None:
            return None
        start, stop = rows.start, rows.stop
        if piece.rows is not None:
            start, stop = start[:, piece.rows], stop[:, piece.rows]
        stop = stop.clamp(max=piece.cols)
        empty = start >= stop
        found.append((torch.where(empty, k_len, start + piece.offset), torch.where(empty, k_len, stop + piece.offset)))
    slots = max(start.shape[2] for start, _ in found)
    batch = max(start.shape[0] for start, _ in found)
    start, stop = (
        torch.cat([_padded(both[side], slots, k_len).expand(batch, -1, -1) for both in found], 1) for side in (0, 1)
    )
    return RowIntervals(start, stop, k_len).narrow()


def _padded(x: Tensor, slots: int, value: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, slots - x.shape[2]), value=value)


def _equal(one: RowIntervals, other: RowIntervals) -> bool:
    if one.per_row != other.per_row or one.start.shape[1] != other.start.shape[1]:
        return False
    return bool((one.start == other.start).all()) and bool((one.stop == other.stop).all())


def _dense(piece: Piece, k_len: int) -> Tensor:
    """What a piece's rows may see of all columns, bool ``(1 or B, 1 or H, count, k_len)``."""
    frame = piece.frame
    dense = piece.mask.over(frame)
    if piece.present is not None:
        dense = dense & piece.present
    if piece.rows is not None:
        dense = dense[:, :, piece.rows]
    return torch.nn.functional.pad(dense[..., : piece.cols], (piece.offset, k_len - piece.offset - piece.cols))

"""Masks and score changes for some of the heads and rows of the call that they were written for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

import torch
from torch import Tensor, nn

from regard._coordinates import Coordinates
from regard.masks import Dense, Document, Mask, Padding
from regard.masks.algebra import And, Not, Or
from regard.masks.base import Stateless
from regard.masks.padding import ValidKeys
from regard.scores import Alibi, Bias, RelativeBias, ScoreModification, Softcap

Places = Tensor | None
"""Int64 ``(n,)`` along one dim, or None for all."""

_M = TypeVar("_M", bound=Mask)


def restricted_mask(mask: Mask, heads: Places, rows: Places) -> Mask:
    """``mask`` for a call of the heads ``heads`` and the rows ``rows`` alone, whose positions are given to the call."""
    if heads is None and rows is None:
        return mask
    match mask:
        case And(parts=parts) | Or(parts=parts):
            return type(mask)(tuple(restricted_mask(part, heads, rows) for part in parts))
        case Not(part=part):
            return Not(restricted_mask(part, heads, rows))
        case Dense():
            return Dense(_picked(mask.tensors()[0], heads, rows))
        case Stateless() | Document() | Padding() | ValidKeys():
            return mask
    return _Part(mask, heads, rows)


def restricted_score_mod(mod: ScoreModification, heads: Places, rows: Places) -> ScoreModification:
    """A score change likewise, and with copies of its parameters, which training may change."""
    match mod:
        case Softcap():
            return mod
        case Alibi():
            return Alibi(_copied(mod.slopes if heads is None else mod.slopes[heads], mod.slopes))
        case Bias():
            return Bias(_copied(_picked(mod.bias, heads, rows), mod.bias))
        case RelativeBias():
            count = mod.num_heads if heads is None else len(heads)
            made = RelativeBias(count, mod.buckets, mod.max_distance, mod.bidirectional)
            made.table = nn.Parameter(_copied(mod.table if heads is None else mod.table[:, heads], mod.table), False)
            return made
    return mod if heads is None and rows is None else _PartOfScores(mod, heads, rows)


class _Part(Mask):
    """Another mask, asked about other heads and rows."""

    def __init__(self, whole: Mask, heads: Places, rows: Places) -> None:
        self._whole, self._heads, self._rows = whole, heads, rows

    def allowed(self, at: Coordinates) -> Tensor:
        return self._whole.allowed(_moved(at, self._heads, self._rows))

    def tensors(self) -> tuple[Tensor, ...]:
        return self._whole.tensors()

    @property
    def batch(self) -> int:
        return self._whole.batch

    @property
    def heads(self) -> int:
        return 1 if self._heads is None else len(self._heads)

    def _key(self) -> Hashable:
        return ("part", self._whole._key(), id(self._heads), id(self._rows))

    def __repr__(self) -> str:
        return repr(self._whole)


class _PartOfScores(ScoreModification):
    """Another score change, told of other heads and rows."""

    def __init__(self, whole: ScoreModification, heads: Places, rows: Places) -> None:
        self._whole, self._heads, self._rows = whole, heads, rows

    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        return self._whole.modify(s, _moved(at, self._heads, self._rows))

    def __repr__(self) -> str:
        return repr(self._whole)


def _moved(at: Coordinates, heads: Places, rows: Places) -> Coordinates:
    h = at.h if heads is None else heads[at.h]
    i = at.i if rows is None else rows[at.i]
    return Coordinates(at.b, h, i, at.j, at.q, at.k)


def _picked(table: Tensor, heads: Places, rows: Places) -> Tensor:
    """``table``, broadcastable to ``(B, H, Lq, Lk)``, of some heads and rows."""
    table = table.reshape((1,) * (4 - table.ndim) + tuple(table.shape))
    for dim, places in ((1, heads), (2, rows)):
        if places is not None and table.shape[dim] > 1:
            table = table.index_select(dim, places)
    return table


def _copied(x: Tensor, source: Tensor) -> Tensor:
    x = x.detach()
    return x.clone() if isinstance(source, nn.Parameter) and x.data_ptr() == source.data_ptr() else x


def everywhere(count: int, chosen: tuple[int, ...], device: torch.device) -> Places:
    """The chosen places out of ``count``; None if they are all of them."""
    return None if len(chosen) == count else torch.tensor(chosen, device=device)

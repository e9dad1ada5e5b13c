"""``&``, ``|`` and ``~`` of masks, simplified as they are built, with three-valued block coverage.

EMPTY < PARTIAL < FULL: the coverage of ``A & B`` is at least as sure as the minimum of theirs, of ``A | B`` the
maximum, and ``~`` exchanges EMPTY and FULL. This is sound for every expression and exact wherever all parts have an
interval form.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable
from functools import reduce
from typing import ClassVar, Self

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard.masks.base import Mask
from regard.masks.blocks import Coverage, from_intervals
from regard.masks.intervals import MAX_INTERVALS, RowIntervals
from regard.masks.trivial import Everything, Nothing


def conjunction(left: Mask, right: Mask) -> Mask:
    """``left & right``: what both allow."""
    return _joined(And, left, right)


def disjunction(left: Mask, right: Mask) -> Mask:
    """``left | right``: what at least one allows."""
    return _joined(Or, left, right)


def negation(mask: Mask) -> Mask:
    """``~mask``: what it does not allow."""
    match mask:
        case Not(part=part):
            return part
        case Everything():
            return Nothing()
        case Nothing():
            return Everything()
    return Not(mask)


class _Joined(Mask):
    """Several masks under one associative operator, in the order they were written, no two the same."""

    symbol: ClassVar[str]
    parts: tuple[Mask, ...]

    def __init__(self, parts: tuple[Mask, ...]) -> None:
        self.parts = parts

    def check(self, frame: Frame) -> None:
        for part in self.parts:
            part.check(frame)

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(t for part in self.parts for t in part.tensors())

    @property
    def batch(self) -> int:
        return max(part.batch for part in self.parts)

    @property
    def heads(self) -> int:
        return max(part.heads for part in self.parts)

    @property
    def extent(self) -> tuple[int | None, int | None]:
        sizes = zip(*(part.extent for part in self.parts), strict=True)
        q_len, k_len = (next((n for n in of if n is not None), None) for of in sizes)
        return q_len, k_len

    def _key(self) -> Hashable:
        return (self.symbol, tuple(part._key() for part in self.parts))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return isinstance(other, type(self)) and _same(self.parts, other.parts, operator.eq)

    def __hash__(self) -> int:
        return hash((self.symbol, frozenset(self.parts)))

    def equal(self, other: Mask) -> bool:
        return isinstance(other, type(self)) and _same(self.parts, other.parts, lambda a, b: a.equal(b))

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        parts, rest = [], tensors
        for part in self.parts:
            n = len(part.tensors())
            parts.append(part._with_tensors(rest[:n]))
            rest = rest[n:]
        return type(self)(tuple(parts))

    def __repr__(self) -> str:
        def inner(part: Mask) -> str:
            return f"({part!r})" if isinstance(part, Or) else repr(part)

        return f" {self.symbol} ".join(inner(part) for part in self.parts)


class And(_Joined):
    """What all parts allow. Built by ``&``."""

    symbol = "&"

    def allowed(self, at: Coordinates) -> Tensor:
        return reduce(torch.logical_and, (part.allowed(at) for part in self.parts))

    def intervals(self, frame: Frame) -> RowIntervals | None:
        return _fold(RowIntervals.intersect, self.parts, frame)

    def grid(self, frame: Frame, block: tuple[int, int]) -> Tensor:
        return reduce(torch.minimum, _grids(self.parts, frame, block, RowIntervals.intersect))


class Or(_Joined):
    """What at least one part allows. Built by ``|``."""

    symbol = "|"

    def allowed(self, at: Coordinates) -> Tensor:
        return reduce(torch.logical_or, (part.allowed(at) for part in self.parts))

    def intervals(self, frame: Frame) -> RowIntervals | None:
        return _fold(RowIntervals.unite, self.parts, frame)

    def grid(self, frame: Frame, block: tuple[int, int]) -> Tensor:
        return reduce(torch.maximum, _grids(self.parts, frame, block, RowIntervals.unite))


class Not(Mask):
    """What its part does not allow. Built by ``~``; compiled functions say ``Not(mask)``, for torch traces no ``~``."""

    def __init__(self, part: Mask) -> None:
        self.part = part

    def allowed(self, at: Coordinates) -> Tensor:
        return ~self.part.allowed(at)

    def intervals(self, frame: Frame) -> RowIntervals | None:
        rows = self.part.intervals(frame)
        return None if rows is None else _limited(rows.complement())

    def grid(self, frame: Frame, block: tuple[int, int]) -> Tensor:
        return int(Coverage.FULL) - self.part.grid(frame, block)

    def check(self, frame: Frame) -> None:
        self.part.check(frame)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.part.tensors()

    @property
    def batch(self) -> int:
        return self.part.batch

    @property
    def heads(self) -> int:
        return self.part.heads

    @property
    def extent(self) -> tuple[int | None, int | None]:
        return self.part.extent

    def _key(self) -> Hashable:
        return ("~", self.part._key())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return isinstance(other, Not) and self.part == other.part

    def __hash__(self) -> int:
        return hash(("~", self.part))

    def equal(self, other: Mask) -> bool:
        return isinstance(other, Not) and self.part.equal(other.part)

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        return type(self)(self.part._with_tensors(tensors))

    def __repr__(self) -> str:
        return f"~({self.part!r})" if isinstance(self.part, _Joined) else f"~{self.part!r}"


def _joined(kind: type[And] | type[Or], left: Mask, right: Mask) -> Mask:
    """Flatten, drop repetitions and neutral parts, and apply the absorbing, complement and absorption laws."""
    neutral, absorbing = (Everything(), Nothing()) if kind is And else (Nothing(), Everything())
    dual = Or if kind is And else And
    flat = [p for mask in (left, right) for p in (mask.parts if isinstance(mask, kind) else (mask,))]
    unique: list[Mask] = []
    for part in flat:
        if part != neutral and part not in unique:
            unique.append(part)
    if absorbing in unique or any(_opposed(part, unique, kind) for part in unique):
        return absorbing
    kept = [p for p in unique if not (isinstance(p, dual) and any(q in p.parts for q in unique if q is not p))]
    match kept:
        case []:
            return neutral
        case [only]:
            return only
    return kind(tuple(kept))


def _opposed(part: Mask, parts: list[Mask], kind: type[And] | type[Or]) -> bool:
    """True when ``parts`` hold all of ``~part``, so that nothing (under ``&``) or everything (under ``|``) is left."""
    opposite = negation(part)
    return all(p in parts for p in (opposite.parts if isinstance(opposite, kind) else (opposite,)))


def _same(left: tuple[Mask, ...], right: tuple[Mask, ...], equal: Callable[[Mask, Mask], bool]) -> bool:
    """True when both hold the same masks, in any order."""
    rest = list(right)
    for part in left:
        match = next((n for n, other in enumerate(rest) if type(part) is type(other) and equal(part, other)), None)
        if match is None:
            return False
        del rest[match]
    return not rest


_Join = Callable[[RowIntervals, RowIntervals], RowIntervals]


def _limited(rows: RowIntervals) -> RowIntervals | None:
    narrow = rows.narrow()
    return narrow if narrow.per_row <= MAX_INTERVALS else None


def _fold(join: _Join, parts: tuple[Mask, ...], frame: Frame) -> RowIntervals | None:
    joined: RowIntervals | None = None
    for part in parts:
        rows = part.intervals(frame)
        if rows is None:
            return None
        joined = rows if joined is None else _limited(join(joined, rows))
        if joined is None:
            return None
    return joined


def _grids(parts: tuple[Mask, ...], frame: Frame, block: tuple[int, int], join: _Join) -> list[Tensor]:
    """The grids of ``parts``, those with an interval form joined exactly into one."""
    joined: RowIntervals | None = None
    grids: list[Tensor] = []
    for part in parts:
        rows = part.intervals(frame)
        if rows is not None and joined is not None:
            rows = _limited(join(joined, rows))
        if rows is None:
            grids.append(part.grid(frame, block))
        else:
            joined = rows
    if joined is not None:
        grids.append(from_intervals(joined, frame.q_len, block).grid())
    return grids

"""Letting someone watch the attention that modules compute, in this thread and for the time of a ``with`` block.

A module computes through `attend` (or `look`, if it wants the lazy weights itself) and names itself. Who watches is an
`Observer` in a context variable: other threads, and code outside the ``with observing(...)`` block, see none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypedDict, Unpack

import torch
from torch import Tensor, nn

from regard._attention import attention
from regard._inspect import Inspection, inspect
from regard.masks import Mask
from regard.scores import ScoreModification


class Keywords(TypedDict, total=False):
    """The keyword arguments of `regard.attention`."""

    mask: Mask | None
    score_mod: ScoreModification | Sequence[ScoreModification] | None
    scale: float | None
    dropout_p: float
    sinks: Tensor | None
    q_positions: Tensor | None
    k_positions: Tensor | None
    backend: str | None


class Observer(Protocol):
    """Someone who watches modules attend."""

    def wants(self, module: nn.Module) -> bool:
        """Whether this module is watched; asked at every call, so it must be cheap."""

    def take(self, module: nn.Module, seen: Inspection, v: Tensor) -> None:
        """What ``module`` just computed, and its values ``(…, Hkv, Lk, Dv)``, which ``seen`` no longer has.

        The tensors are those of the model itself: whoever keeps them keeps them as they are now.
        """


_OBSERVERS: ContextVar[tuple[Observer, ...]] = ContextVar("regard_observers", default=())


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let ``observer``, and all who watch already, watch this thread until the block is left."""
    token = _OBSERVERS.set((*_OBSERVERS.get(), observer))
    try:
        yield
    finally:
        _OBSERVERS.reset(token)


def is_observing(observer: Observer) -> bool:
    """Whether ``observer`` watches this thread."""
    return any(one is observer for one in _OBSERVERS.get())


def attend(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, **keywords: Unpack[Keywords]) -> Tensor:
    """`regard.attention` in the name of ``module``: watched, if someone wants it, and else nothing more.

    Args:
        module: the module that attends.
        q: as in `regard.attention`, like all the others.
        k: likewise.
        v: likewise.
        **keywords: likewise.
    """
    watching = _watching(module)
    if not watching:
        return attention(q, k, v, **keywords)
    return _told(watching, module, inspect(q, k, v, **keywords), v).out


def look(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, **keywords: Unpack[Keywords]) -> Inspection:
    """`regard.inspect` in the name of ``module``, watched likewise."""
    return _told(_watching(module), module, inspect(q, k, v, **keywords), v)


def _watching(module: nn.Module) -> list[Observer]:
    # A graph that is compiled while someone watches would go on telling after they left.
    if torch.compiler.is_compiling():
        return []
    return [observer for observer in _OBSERVERS.get() if observer.wants(module)]


def _told(watching: list[Observer], module: nn.Module, seen: Inspection, v: Tensor) -> Inspection:
    for observer in watching:
        observer.take(module, seen, v)
    return seen

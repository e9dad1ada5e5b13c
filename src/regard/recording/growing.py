"""A tensor that grows along its tokens, kept in pieces: by reference where it can be, on disk where it must be."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from regard._errors import StaleError
from regard.masks.base import version

TOKENS = 2
"""The dim of tokens in ``(B, H, tokens, …)``."""

_SMALL = 1 << 16
_LEAST_ROOM = 64
_SAMPLE = 16


class Growing:
    """Tensors ``(B, H, n, …)`` one behind the other in their third dim.

    What is large is kept by reference, what is small is written into memory that is taken in advance, and nothing is
    copied twice before `whole` joins it.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._marks: list[int | Tensor] = []
        self._room: Tensor | None = None
        self._used = 0
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        held = [*self._parts, *([] if self._room is None else [self._room])]
        return sum(x.numel() * x.element_size() for x in held if not _on_disk(x))

    def append(self, x: Tensor) -> None:
        """Put ``x`` behind what is there."""
        if not x.shape[TOKENS]:
            return
        if self._room is None and (not self._parts or x.numel() >= _SMALL):
            self._hold(x)
        else:
            self._write(x)
        self.length += x.shape[TOKENS]

    def replace(self, x: Tensor) -> None:
        """Hold ``x``, which begins with all that was there, instead."""
        self._parts, self._marks, self._room, self._used = [], [], None, 0
        self._hold(x)
        self.length = x.shape[TOKENS]

    def truncate(self, length: int) -> None:
        """Keep only the first ``length`` tokens."""
        if length < self.length:
            self.replace(self.whole().narrow(TOKENS, 0, length))

    def at(self, places: Tensor) -> Tensor:
        """The tokens at ``places``, int64 ``(n,)`` ascending."""
        found, start = [], 0
        for part in self._all():
            stop = start + part.shape[TOKENS]
            here = places[(places >= start) & (places < stop)] - start
            if len(here):
                found.append(part.index_select(TOKENS, here))
            start = stop
        return torch.cat(found, TOKENS) if found else torch.empty(0)

    def whole(self) -> Tensor:
        """Everything as one tensor, which replaces the pieces."""
        self.check()
        parts = self._all()
        if len(parts) > 1 or self._room is not None:
            self.replace(torch.cat(parts, TOKENS))
        return self._parts[0]

    def check(self) -> None:
        """Raise if something that is held by reference was changed in place.

        Raises:
            StaleError: it was.
        """
        if any(_changed(x, before) for x, before in zip(self._parts, self._marks, strict=True)):
            raise StaleError(
                "what a layer attended with was changed in place while it was recorded, and a record keeps queries and "
                "keys by reference. Record with copy=True."
            )

    def spill(self, path: Path) -> None:
        """Move everything to a file, from which it is read page by page."""
        from regard.recording.disk import spilled

        if not self.length or (self._room is None and all(_on_disk(x) for x in self._parts)):
            return
        self.replace(spilled(self.whole(), path))

    def _all(self) -> list[Tensor]:
        return [*self._parts, *([] if self._room is None else [self._room.narrow(TOKENS, 0, self._used)])]

    def _hold(self, x: Tensor) -> None:
        self._parts.append(x)
        self._marks.append(_mark(x))

    def _write(self, x: Tensor) -> None:
        count = x.shape[TOKENS]
        if self._room is not None and self._used + count > self._room.shape[TOKENS]:
            self._hold(self._room.narrow(TOKENS, 0, self._used))
            self._room = None
        if self._room is None:
            size = max(_LEAST_ROOM, self.length // 8, count)
            self._room, self._used = x.new_empty((*x.shape[:TOKENS], size, *x.shape[TOKENS + 1 :])), 0
        self._room.narrow(TOKENS, self._used, count).copy_(x)
        self._used += count


def _mark(x: Tensor) -> int | Tensor:
    """By what a change in place is noticed: the counter, or some tokens of an inference tensor, which has none."""
    counted = version(x)
    return _sample(x) if counted is None else counted


def _changed(x: Tensor, before: int | Tensor) -> bool:
    if not isinstance(before, Tensor):
        return version(x) != before
    now = _sample(x)
    return not bool(((now == before) | (now.isnan() & before.isnan())).all())


def _sample(x: Tensor) -> Tensor:
    count = x.shape[TOKENS]
    places = torch.linspace(0, count - 1, min(count, _SAMPLE), dtype=torch.float64).long()
    return x.detach().index_select(TOKENS, places.to(x.device))


def _on_disk(x: Tensor) -> bool:
    return getattr(x, "regard_on_disk", False) is True

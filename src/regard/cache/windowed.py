"""Caches that drop keys: the last ones only, or the first and the last ones."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from regard._errors import ArgumentError
from regard.cache.base import Cache
from regard.cache.buffer import Buffer
from regard.masks.base import checked_int


class WindowedCache(Cache):
    """Keeps the first ``sinks`` and the last ``window`` keys."""

    def __init__(self, sinks: int, window: int) -> None:
        super().__init__()
        self.sinks = checked_int("sinks", sinks, 0)
        self.window = checked_int("window", window, 1)
        self._first: Buffer | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._check(k, v)
        # Room to move through, so that the window is copied once in as many steps as it is long.
        buffer = self._extend(k, v, self.sinks + 2 * self.window)
        keys, values = buffer.view()
        positions = torch.arange(self.length - buffer.length, self.length, device=k.device)
        if self._first is not None:
            first_k, first_v = self._first.view()
            keys, values = torch.cat([first_k, keys], -2), torch.cat([first_v, values], -2)
            positions = torch.cat([torch.arange(self.sinks, device=k.device), positions])
        self._trim(buffer)
        return keys, values, positions

    def _trim(self, buffer: Buffer) -> None:
        if self._first is None:
            # Until more keys than the cache keeps have come, the first ones are still part of the buffer.
            if buffer.length <= self.sinks + self.window:
                return
            if self.sinks:
                k, v = (x.narrow(-2, 0, self.sinks) for x in buffer.view())
                self._first = Buffer(k, v, self.sinks)
        buffer.drop(torch.sym_max(buffer.length - self.window, 0))

    @property
    def gone(self) -> tuple[int, int]:
        held = 0 if self._buffer is None else self._buffer.length
        start = 0 if self._first is None else self.sinks
        return start, torch.sym_max(self.length - held, start)

    def crop(self, length: int) -> None:
        gone = self.dropped
        if self._checked_length(length) == 0:
            self.reset()
            return
        if gone and length < gone.stop:
            raise ArgumentError(
                f"{self!r} has dropped the keys at positions {gone.start} … {gone.stop - 1} and cannot go back to "
                f"{length} tokens. Make it with a window that is longer by as many tokens as you go back."
            )
        if length < self.length and self._buffer is not None:
            self._buffer.keep(self._buffer.length - (self.length - length))
        self.length = length

    def reset(self) -> None:
        super().reset()
        self._first = None

    def _buffers(self) -> list[Buffer]:
        return super()._buffers() + ([] if self._first is None else [self._first])

    @abstractmethod
    def __repr__(self) -> str: ...


class RollingCache(WindowedCache):
    """Keeps the last ``window`` keys, for `SlidingWindow.of_width(window)` and any narrower mask.

    ``append`` returns the keys held before *and* all new ones, and drops keys only then: a chunk of any length sees all
    that its mask allows. After ``crop`` the window is shorter by the tokens taken back, until new ones fill it.
    An exported program (`torch.export`) is for all lengths at which keys have been dropped already.

    Args:
        window: keys kept.

    Raises:
        KindError: no int.
        ArgumentError: a window below 1.

    >>> cache = RollingCache(3)
    >>> for _ in range(5):
    ...     k, v, positions = cache.append(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
    >>> positions, cache.dropped
    (tensor([1, 2, 3, 4]), range(0, 2))
    """

    def __init__(self, window: int) -> None:
        super().__init__(0, window)

    def __repr__(self) -> str:
        return f"RollingCache({self.window})"


class SinkCache(WindowedCache):
    """Keeps the first ``sinks`` and the last ``window`` keys (StreamingLLM, Xiao et al. 2023, arXiv:2309.17453).

    For ``Causal() & (SlidingWindow.of_width(window) | Prefix(sinks))`` and any narrower mask. Positions stay the true
    ones; the paper counts positions inside the cache instead. Otherwise like `RollingCache`.

    Args:
        sinks: keys kept from the start, at least 0.
        window: keys kept from the end.

    Raises:
        KindError: no int.
        ArgumentError: a number that is too small.

    >>> cache = SinkCache(1, 2)
    >>> for _ in range(6):
    ...     k, v, positions = cache.append(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
    >>> positions, cache.dropped
    (tensor([0, 3, 4, 5]), range(1, 4))
    """

    def __init__(self, sinks: int, window: int) -> None:
        super().__init__(sinks, window)

    def __repr__(self) -> str:
        return f"SinkCache({self.sinks}, {self.window})"

"""The cache that keeps everything."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._errors import ArgumentError
from regard.cache.base import Cache
from regard.masks.base import checked_int


class FullCache(Cache):
    """Keeps every key. Every mask fits it.

    Memory grows by doubling; with ``max_length`` it is taken once, at the first ``append``.

    Args:
        max_length: the most tokens; default: no limit.

    Raises:
        KindError: no int.
        ArgumentError: a length below 1.

    >>> cache = FullCache()
    >>> k, v, positions = cache.append(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    >>> k, v, positions = cache.append(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
    >>> positions
    tensor([0, 1, 2, 3])
    """

    def __init__(self, max_length: int | None = None) -> None:
        super().__init__()
        self.max_length = None if max_length is None else checked_int("max_length", max_length, 1)
        self._room = self.max_length or 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *self.extend(k, v), torch.arange(self.length, device=k.device)

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`append` without the positions, which are ``0 … length - 1``."""
        self._check(k, v)
        total = self.length + k.shape[-2]
        if self.max_length is not None and total > self.max_length:
            raise ArgumentError(
                f"this cache was made for at most max_length={self.max_length} tokens: it has {self.length} and got "
                f"{k.shape[-2]} more. Make it with FullCache(max_length={total}), or without a limit."
            )
        return self._extend(k, v, self._room, self.max_length).view()

    @property
    def gone(self) -> tuple[int, int]:
        return 0, 0

    def reserve(self, length: int) -> None:
        """Have memory for ``length`` tokens in all from the next time that memory is taken.

        Raises:
            KindError: no int.
            ArgumentError: a length below 1, or above ``max_length``.
        """
        room = checked_int("length", length, 1)
        if self.max_length is not None and room > self.max_length:
            raise ArgumentError(f"reserve stays within max_length={self.max_length}: got {room}.")
        self._room = max(self._room, room)

    def crop(self, length: int) -> None:
        if self._checked_length(length) < self.length and self._buffer is not None:
            self._buffer.keep(length)
        self.length = length

    def __repr__(self) -> str:
        limit = "" if self.max_length is None else f"max_length={self.max_length}"
        return f"FullCache({limit})"

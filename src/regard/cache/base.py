"""What a cache is: keys and values of the tokens so far, with their positions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, ShapeError, describe, got
from regard.cache.buffer import Buffer
from regard.masks.base import checked_int


class Cache(ABC):
    """Base of all caches: the keys and values of one layer.

    Attributes:
        length: tokens appended so far, dropped ones included; the position of the next token.

    Gradients flow through a cache: while a tensor in it requires one, ``append`` concatenates instead of writing into
    memory kept ready. Decode under `torch.no_grad` or `torch.inference_mode`.
    """

    def __init__(self) -> None:
        self.length = 0
        self._buffer: Buffer | None = None

    @abstractmethod
    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add the keys ``k (…, Hkv, L, D)`` and values ``v (…, Hkv, L, Dv)`` of the next ``L`` tokens.

        Returns:
            Keys, values and positions int64 ``(Lk,)`` that the new tokens may attend to, ascending by position: those
            held before and all new ones. Nothing done to the cache later changes them.

        Raises:
            KindError: no tensors, or another dtype than before.
            ShapeError: sizes that do not fit together or to what is held.
            ArgumentError: more tokens than the cache may hold, another device than before.
        """

    @property
    @abstractmethod
    def gone(self) -> tuple[int, int]:
        """First and last + 1 of the positions whose keys are gone; in a graph they need not be known."""

    @property
    def dropped(self) -> range:
        """The positions below ``length`` whose keys are gone."""
        return range(*self.gone)

    @abstractmethod
    def crop(self, length: int) -> None:
        """Go back to the first ``length`` tokens, as when drafted tokens are rejected in speculative decoding.

        Raises:
            KindError: no int.
            ArgumentError: a length below 0, above what was appended, or before keys that were dropped.
        """

    def reorder(self, index: Tensor) -> None:
        """Make batch entry ``n`` the former entry ``index[n]``, as in beam search.

        Args:
            index: int64 ``(B',)``; entries may repeat, and their number may differ.

        Raises:
            KindError: no int64 tensor.
            ShapeError: more than one dim.
            ArgumentError: a cache without a batch dim, an entry that does not exist.
        """
        if not isinstance(index, Tensor) or index.dtype != torch.int64:
            raise KindError(f"reorder takes an int64 tensor of batch entries: got {describe(index)}.")
        if index.ndim != 1:
            raise ShapeError(f"reorder takes one entry for each of the new batch, (B',): got {tuple(index.shape)}.")
        for buffer in self._buffers():
            k, _ = buffer.view()
            if k.ndim < 4:
                raise ArgumentError(f"reorder needs keys with a batch dim (B, Hkv, L, D): got {describe(k)}.")
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < k.shape[0]:
                raise ArgumentError(f"reorder takes batch entries from 0 to {k.shape[0] - 1}: got {index.tolist()}.")
            buffer.reorder(index)

    def reset(self) -> None:
        """Forget everything."""
        self.length = 0
        self._buffer = None

    def _buffers(self) -> list[Buffer]:
        return [] if self._buffer is None else [self._buffer]

    def _extend(self, k: Tensor, v: Tensor, room: int, limit: int | None = None) -> Buffer:
        """Write ``k`` and ``v`` behind the last token."""
        if self._buffer is None:
            self._buffer = Buffer(k, v, room if limit is None else min(room, limit))
        else:
            self._buffer.extend(k, v, room, limit)
        self.length += k.shape[-2]
        return self._buffer

    def _check(self, k: Tensor, v: Tensor) -> None:
        for name, x in (("k", k), ("v", v)):
            if not isinstance(x, Tensor) or not x.is_floating_point():
                raise KindError(f"a cache takes floating-point tensors: got {name} {describe(x)}.")
        if min(k.ndim, v.ndim) < 2 or k.shape[:-1] != v.shape[:-1]:
            raise ShapeError(
                f"k and v must be (…, Hkv, L, D) and (…, Hkv, L, Dv), alike but for their last dim: "
                f"{got({'k': k, 'v': v})}."
            )
        if self._buffer is None or self._buffer.takes(k, v):
            return
        for name, new, old in zip("kv", (k, v), self._buffer.view(), strict=True):
            if new.dtype != old.dtype:
                raise KindError(f"{name} must have the dtype of what the cache holds, {old.dtype}: got {new.dtype}.")
            if new.device != old.device:
                raise ArgumentError(f"{name} must be on the device of the cache, {old.device}: got {new.device}.")
            if (*new.shape[:-2], new.shape[-1]) != (*old.shape[:-2], old.shape[-1]):
                raise ShapeError(
                    f"{name} must be like what the cache holds, {tuple(old.shape)}, but for the number of tokens: got "
                    f"{tuple(new.shape)}. One cache belongs to one layer and one batch; .reset() empties it."
                )

    def _checked_length(self, length: int) -> int:
        if checked_int("length", length, 0) > self.length:
            raise ArgumentError(f"crop goes back, to at most the {self.length} tokens so far: got {length}.")
        return length

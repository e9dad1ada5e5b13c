"""Memory for keys and values that is appended to and never overwritten."""

from __future__ import annotations

import torch
from torch import Tensor


class Buffer:
    """Keys and values of consecutive tokens, with room for more.

    Tokens are written behind the last one and dropped by moving the start, so that a view handed out keeps its content
    for ever. When the room is used up, or when tokens at the end are taken back, the rest moves to new memory, twice as
    large: a token is copied a bounded number of times on average.
    """

    def __init__(self, k: Tensor, v: Tensor, room: int) -> None:
        self._start, self._stop = 0, k.shape[-2]
        self._k, self._v = (_with_room(x, room) for x in (k, v))

    @property
    def length(self) -> int:
        """Tokens held; `len` would make a constant of it in a graph."""
        return self._stop - self._start

    def extend(self, k: Tensor, v: Tensor, room: int, limit: int | None = None) -> None:
        """Append ``k`` and ``v (…, Hkv, L, D)``; memory is for ``room`` tokens or more, and for ``limit`` at most."""
        learns = self._k.requires_grad or self._v.requires_grad or k.requires_grad or v.requires_grad
        if learns or torch.compiler.is_exporting():
            # Writing in place would cut the gradients of what was handed out before; and an exported program, whose
            # caches end with it, would ask how long they are.
            held_k, held_v = self.view()
            self._move(torch.cat([held_k, k], -2), torch.cat([held_v, v], -2), room=0)
            return
        stop = self._stop + k.shape[-2]
        # Memory taken in inference mode may not be written outside of it. The compiler cannot ask, and need not.
        foreign = not torch.compiler.is_compiling() and self._k.is_inference() != torch.is_inference_mode_enabled()
        if stop > self._k.shape[-2] or foreign:
            used = self.length + k.shape[-2]
            room = max(room, 2 * used)
            self._move(*self.view(), room=room if limit is None else min(room, limit))
            stop = self._stop + k.shape[-2]
        more = stop - self._stop
        self._k.narrow(-2, self._stop, more).copy_(k)
        self._v.narrow(-2, self._stop, more).copy_(v)
        self._stop = stop

    def takes(self, k: Tensor, v: Tensor) -> bool:
        """Whether ``k`` and ``v`` are like what is held, but for the number of tokens."""
        return _like(k, self._k) and _like(v, self._v)

    def view(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens, without a copy."""
        length = self.length
        if self._k.requires_grad or self._v.requires_grad or torch.compiler.is_compiling():
            return self._k.narrow(-2, self._start, length), self._v.narrow(-2, self._start, length)
        # .data has a version counter of its own: writing behind a view does not change it, and nobody need think so.
        return self._k.data.narrow(-2, self._start, length), self._v.data.narrow(-2, self._start, length)

    def drop(self, tokens: int) -> None:
        """Drop the first ``tokens`` tokens."""
        self._start += tokens

    def keep(self, tokens: int) -> None:
        """Keep only the first ``tokens`` tokens."""
        k, v = self.view()
        self._move(k.narrow(-2, 0, tokens), v.narrow(-2, 0, tokens), room=self._k.shape[-2])

    def reorder(self, index: Tensor) -> None:
        """Take the batch entries ``index``."""
        k, v = self.view()
        self._move(k.index_select(0, index), v.index_select(0, index), room=self._k.shape[-2])

    def _move(self, k: Tensor, v: Tensor, room: int) -> None:
        self._start, self._stop = 0, k.shape[-2]
        self._k, self._v = (_with_room(x, room) for x in (k, v))


def _with_room(x: Tensor, room: int) -> Tensor:
    """New memory of ``room`` tokens or more that begins with ``x``; ``x`` itself if it will not be written behind."""
    if x.requires_grad or torch.compiler.is_exporting():
        return x
    memory = x.new_empty((*x.shape[:-2], max(room, x.shape[-2]), x.shape[-1]))
    memory[..., : x.shape[-2], :] = x
    return memory


def _like(x: Tensor, memory: Tensor) -> bool:
    if x.dtype is not memory.dtype or x.device != memory.device:
        return False
    shape, held = x.shape, memory.shape
    return len(shape) == len(held) and shape[:-2] == held[:-2] and shape[-1] == held[-1]

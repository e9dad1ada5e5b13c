"""Memory of large gradients, kept when they are freed and used again for the next ones of the same size.

A training step makes the gradient of a bias for every pair anew, as large as all the scores. Up to 32 MB the C library
keeps what is freed; beyond, it goes back to the system, which hands out every page anew and clears it first, and that
takes longer than the gradient itself.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LARGE = 1 << 25
_MOST = 1 << 29
_Block = npt.NDArray[np.float32]


class _Kept:
    """Blocks that nobody uses, by size; at most `_MOST` bytes, and where they would be more, the others are let go."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[_Block]] = {}

    def take(self, size: int) -> _Block | None:
        try:
            return self.blocks[size].pop()
        except (KeyError, IndexError):
            return None

    def give(self, block: _Block) -> None:
        held = sum(4 * size * len(blocks) for size, blocks in tuple(self.blocks.items()))
        if held + block.nbytes > _MOST:
            self.blocks = {}
        if block.nbytes <= _MOST:
            self.blocks.setdefault(block.size, []).append(block)


kept = _Kept()


def zeros(*shape: int) -> Tensor:
    """float32 zeros on the CPU, in memory of freed ones where they are large."""
    size = math.prod(shape)
    if 4 * size < _LARGE:
        return torch.zeros(shape)
    block = kept.take(size)
    if block is None:
        block = np.empty(size, dtype=np.float32)
    view: Any = block.view()
    weakref.finalize(view, kept.give, block).atexit = False
    return torch.from_numpy(view).zero_().view(shape)

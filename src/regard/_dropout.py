"""Dropout by a counter-based hash: which weights are kept depends on the seed and on where they stand, on nothing else.

Weight ``(b, h, i, j)`` is kept iff ``mix32(row(seed, b, h, i) xor j * 0x9E3779B9) >= floor(p * 2**32)`` in uint32, so
that any backend, tile order or thread count drops the same weights, and backward recomputes them instead of storing.
`mix32` is the two-round xor-shift-multiply finaliser with the constants that C. Wellons' search found least biased
(0x7FEB352D, 0x846CA68B; shifts 16, 15, 16); 0x9E3779B9 is 2**32 divided by the golden ratio.
"""

import torch
from torch import Tensor

from regard._coordinates import Coordinates

GOLDEN = 0x9E3779B9
_MASK = 0xFFFFFFFF


def draw_seed() -> int:
    """One int64 from torch's default CPU generator, so that `torch.manual_seed` fixes the dropout of the next calls."""
    return int(torch.randint(0, 2**63 - 1, (), dtype=torch.int64))


def mix32(x: Tensor) -> Tensor:
    """The 32-bit finaliser, on int64 tensors that hold uint32 values."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def row_state(seed: int, b: Tensor, h: Tensor, i: Tensor) -> Tensor:
    """The uint32 state of a row, as int64: the low and high half of the seed, b, h and i, mixed in one by one."""
    state = torch.zeros_like(i)
    for word in (seed & _MASK, (seed >> 32) & _MASK, b, h, i):
        state = mix32(((state ^ word) + GOLDEN) & _MASK)
    return state


def keep(seed: int, p: float, at: Coordinates) -> Tensor:
    """Which weights are kept, bool, broadcastable to ``at.shape``."""
    row = row_state(seed, at.b, at.h, at.i)
    return mix32(row ^ ((at.j * GOLDEN) & _MASK)) >= int(p * 2**32)

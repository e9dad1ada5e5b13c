"""Dropout by a counter-based hash: which weights are kept depends on the seed and on where they stand, on nothing else.

Weight ``(b, h, i, j)`` is kept iff ``mix32(row(seed, b, h, i) xor j * 0x9E3779B9) >= floor(p * 2**32)`` in uint32, so
that any backend, tile order or thread count drops the same weights, and backward recomputes them instead of storing.
`mix32` is the two-round xor-shift-multiply finaliser with the constants that C. Wellons' search found least biased
(0x7FEB352D, 0x846CA68B; shifts 16, 15, 16); 0x9E3779B9 is 2**32 divided by the golden ratio.
"""

import torch
from torch import Tensor

from regard._coordinates import Coordinates

_WORD = 0xFFFFFFFF


def _signed(word: int) -> int:
    """The int32 with the bits of a uint32."""
    return word - (1 << 32) if word >> 31 else word


# torch has no fast uint32, so its bits live in int32: products wrap alike, and shifts mask what the sign drags in.
_GOLDEN = _signed(0x9E3779B9)
_FIRST = _signed(0x7FEB352D)
_SECOND = _signed(0x846CA68B)
_SIGN = _signed(0x80000000)


def draw_seed() -> int | Tensor:
    """One int64 from torch's default CPU generator, so that `torch.manual_seed` fixes the dropout of the next calls.

    In a graph it stays a tensor, and a compiler with a generator of its own draws another.
    """
    seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device="cpu")
    return seed if torch.compiler.is_compiling() else int(seed)


def mix32(x: Tensor) -> Tensor:
    """The 32-bit finaliser, on the bits of an int32 tensor."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x.mul_(_FIRST)
    x ^= (x >> 15) & 0x1FFFF
    x *= _SECOND
    x ^= (x >> 16) & 0xFFFF
    return x


def row_state(seed: int | Tensor, b: Tensor, h: Tensor, i: Tensor) -> Tensor:
    """The state of a row, int32: the low and high half of the seed, b, h and i, mixed in one by one."""
    state = torch.zeros_like(i, dtype=torch.int32)
    seed = int(seed)
    for half in (seed & _WORD, (seed >> 32) & _WORD):
        state = mix32((state ^ _signed(half)) + _GOLDEN)
    for index in (b, h, i):
        state = mix32((state ^ index.to(torch.int32)) + _GOLDEN)
    return state


def keep(seed: int | Tensor, p: float, at: Coordinates) -> Tensor:
    """Which weights are kept, bool, broadcastable to ``at.shape``."""
    row = row_state(seed, at.b, at.h, at.i)
    bits = mix32(row ^ (at.j.to(torch.int32) * _GOLDEN))
    # Flipping the sign bit makes the signed comparison an unsigned one.
    return (bits ^ _SIGN) >= int(p * 2**32) - (1 << 31)

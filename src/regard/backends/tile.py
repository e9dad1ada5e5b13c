"""The scores of one tile: the formula of `regard.backends.reference` on a part of the rows and columns."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates


def grouped(q: Tensor, k: Tensor) -> Tensor:
    """``q kᵀ`` for grouped heads without repeating k: ``(n, H, r, D)`` and ``(n, Hkv, c, D)`` to ``(n, H, r, c)``."""
    n, heads, rows, width = q.shape
    kv_heads = k.shape[1]
    if heads == kv_heads:
        return q @ k.mT
    stacked = q.reshape(n, kv_heads, heads // kv_heads * rows, width)
    return (stacked @ k.mT).view(n, heads, rows, k.shape[2])


def scores(call: Call, at: Coordinates, q: Tensor, k: Tensor) -> Tensor:
    """The final scores at ``at``: scaled, changed, and ``-inf`` where the mask hides.

    Args:
        call: supplies scale, score changes and mask.
        at: where the tile stands; broadcasts to ``(n, H, r, c)``.
        q: the tile's queries ``(n, H, r, D)`` in the accumulation dtype.
        k: the tile's keys ``(n, Hkv, c, D)`` in the accumulation dtype.

    Returns:
        ``(n, H, r, c)`` in the accumulation dtype.
    """
    s = grouped(q, k) * call.scale
    for mod in call.score_mods:
        s = mod.modify(s, at)
    return torch.where(call.mask.allowed(at), s, -torch.inf)

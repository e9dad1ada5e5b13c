"""The plain path: dense attention as anyone would write it, in the working precision of the call.

It only measures how far honest arithmetic in that precision is from the oracle; nothing is compared with its values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from regard import _dropout
from regard._coordinates import Frame
from regard.masks import Everything, Mask
from regard.scores import ScoreModification


class Plain(NamedTuple):
    """``out`` in the dtype of q, ``lse`` and ``weights`` in the accumulation dtype; shapes as from the oracle."""

    out: Tensor
    lse: Tensor
    weights: Tensor


def plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    score_mod: ScoreModification | Sequence[ScoreModification] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    sinks: Tensor | None = None,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
) -> Plain:
    """Operands in their dtype, the rest in the accumulation dtype (float64 for float64, else float32)."""
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    two_dims = max(x.ndim for x in (q, k, v)) == 2
    q, k, v = (x[None] if x.ndim == 2 else x for x in (q, k, v))
    lead = torch.broadcast_shapes(*(x.shape[:-3] for x in (q, k, v)))
    batch = math.prod(lead)
    out_dtype = q.dtype
    q, k, v = (x.expand(*lead, *x.shape[-3:]).reshape(batch, *x.shape[-3:]).to(dtype) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    # What is not finite is hidden from every query, or the call has no finite answer to compare with.
    k, v = (x.nan_to_num(0, 0, 0).repeat_interleave(group, 1) for x in (k, v))

    at = Frame.of(batch, q.shape[1], q.shape[2], k.shape[2], q_positions, k_positions).everywhere()
    s = q @ k.mT * (1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale)
    for mod in score_mod if isinstance(score_mod, Sequence) else [score_mod] if score_mod is not None else []:
        s = mod.modify(s, at)
    allowed = (Everything() if mask is None else mask).allowed(at).expand(s.shape)
    s = s.masked_fill(~allowed, -math.inf)
    sees = allowed.any(-1, keepdim=True)
    if sinks is not None:
        s = torch.cat([s, sinks.to(dtype)[:, None, None].expand(*s.shape[:-1], 1)], -1)
        sees = torch.ones_like(sees)
    s = s.masked_fill(~sees, 0)
    lse = s.logsumexp(-1).masked_fill(~sees[..., 0], -math.inf)
    w = s.softmax(-1).masked_fill(~sees, 0)[..., : k.shape[2]]
    dropped = w
    if dropout_p > 0 and seed is not None:
        dropped = w * _dropout.keep(seed, dropout_p, at) / (1 - dropout_p)
    out = (dropped @ v).to(out_dtype)
    out, lse, w = (x.reshape(*lead, *x.shape[1:]) for x in (out, lse, w))
    return Plain(out[0], lse[0], w[0]) if two_dims else Plain(out, lse, w)

"""Online softmax over the visible tiles (Milakov & Gimelshein 2018; Rabe & Staats 2021; FlashAttention, Dao et al. 2022).

For each row, with ``m`` the greatest score so far: ``l = Σ exp(s - m)``, ``acc = Σ exp(s - m) v``, and where statistics
are wanted ``t = Σ exp(s - m) (s - m)``. A greater m rescales them by ``exp(m_old - m)``. At the end ``out = acc / l``,
``lse = m + log l`` and the entropy is ``log l - t / l``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard import _dropout
from regard._call import Call
from regard._coordinates import Coordinates
from regard.backends.blockwise.plan import Step, steps
from regard.backends.tile import grouped, weigh


@dataclass
class RowStats:
    """What the forward pass leaves for the caller and for the backward pass, all in the accumulation dtype.

    Attributes:
        out: ``(B, H, Lq, Dv)``.
        lse: ``(B, H, Lq)``; ``-inf`` for a row that sees nothing.
        entropy: ``(B, H, Lq)`` in nats, or None if not asked for.
        max_logit: ``(B, H)``, or None if not asked for.
    """

    out: Tensor
    lse: Tensor
    entropy: Tensor | None
    max_logit: Tensor | None


def forward(call: Call, q: Tensor, k: Tensor, v: Tensor) -> RowStats:
    """Output and row statistics of a call whose operands hold nothing non-finite that no query may see."""
    dtype = call.accumulation_dtype
    batch, heads, q_len = q.shape[:3]
    out = torch.zeros((batch, heads, q_len, v.shape[-1]), dtype=dtype, device=q.device)
    lse = torch.full((batch, heads, q_len), -torch.inf, dtype=dtype, device=q.device)
    entropy = torch.zeros_like(lse) if "entropy" in call.stats else None
    max_logit = lse.new_full((batch, heads, q_len), -torch.inf) if "max_logit" in call.stats else None
    if call.sinks is not None:
        lse.copy_(call.sinks.to(dtype)[:, None].expand_as(lse))
    for step in steps(call):
        rows = _rows(step, call, q, k, v)
        step.store(out, rows.out)
        step.store(lse, rows.lse)
        if entropy is not None and rows.entropy is not None:
            step.store(entropy, rows.entropy)
        if max_logit is not None and rows.max_logit is not None:
            step.store(max_logit, rows.max_logit)
    if max_logit is not None:
        max_logit = max_logit.amax(-1) if q_len else max_logit.new_full((batch, heads), -torch.inf)
    return RowStats(out, lse, entropy, max_logit)


def tile_scores(step: Step, chunk: Any, call: Call, q: Tensor, k: Tensor, at: Coordinates | None) -> Tensor:
    """The final scores of one chunk of a step, ``-inf`` where hidden; ``q`` is scaled."""
    s = grouped(q, step.keys(k, chunk, call.accumulation_dtype))
    for mod in call.score_mods:
        s = mod.modify(s, at if at is not None else step.at(call.frame, chunk))
    return step.hide(s, call, chunk)


def _rows(step: Step, call: Call, q: Tensor, k: Tensor, v: Tensor) -> RowStats:
    dtype = call.accumulation_dtype
    entropic, keep_top = "entropy" in call.stats, "max_logit" in call.stats
    queries = step.queries(q, dtype) * call.scale
    top = queries.new_full((*queries.shape[:-1], 1), -torch.inf)
    total, moment, acc = torch.zeros_like(top), torch.zeros_like(top), torch.zeros_like(top)
    for chunk in step.chunks:
        at = step.at(call.frame, chunk) if call.score_mods or call.seed is not None else None
        s = tile_scores(step, chunk, call, queries, k, at)
        above = torch.maximum(top, s.amax(-1, keepdim=True))
        shift = torch.where(above == -torch.inf, 0, above)
        shrink = torch.exp(top - shift)
        if entropic:
            # Moving the shift moves the moment by total * (old - new); an empty row has nothing to move.
            moment = shrink * (moment + total * torch.where(total > 0, top - shift, 0))
        top = above
        p = s.sub_(shift).exp_()
        total = total * shrink + p.sum(-1, keepdim=True)
        if entropic:
            moment -= torch.special.entr(p).sum(-1, keepdim=True)
        if call.seed is not None and at is not None:
            p = torch.where(_dropout.keep(call.seed, call.dropout_p, at), p, 0)
        acc = acc * shrink + weigh(p, step.keys(v, chunk, dtype))
    logit = top
    if call.sinks is not None:
        sink = call.sinks.to(dtype)[step.heads, None, None]
        above = torch.maximum(top, sink)
        shift = torch.where(above == -torch.inf, 0, above)
        shrink = torch.exp(top - shift)
        share = torch.exp(sink - shift)
        moment = shrink * (moment + total * torch.where(total > 0, top - shift, 0)) - torch.special.entr(share)
        total, acc, top = total * shrink + share, acc * shrink, above
    empty = total == 0
    safe = torch.where(empty, 1, total)
    out = acc / (safe * (1 - call.dropout_p))
    lse = torch.where(empty, -torch.inf, torch.where(empty, 0, top) + torch.log(safe))
    entropy = (torch.log(safe) - moment / safe)[..., 0] if entropic else None
    return RowStats(out, lse[..., 0], entropy, logit[..., 0] if keep_top else None)

"""Online softmax over the visible tiles (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022).

For each row, with ``m`` the greatest score so far: ``l = Σ exp(s - m)``, ``acc = Σ exp(s - m) v``, and where statistics
are wanted ``t = Σ exp(s - m) (s - m)``. A greater m rescales them by ``exp(m_old - m)``. At the end ``out = acc / l``,
``lse = m + log l`` and the entropy is ``log l - t / l``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from regard import _dropout
from regard._call import Call
from regard.backends.blockwise.plan import plan
from regard.backends.blockwise.steps import Step
from regard.backends.tile import exp_, grouped, weigh


@dataclass
class RowStats:
    """What the forward pass leaves for the caller and for the backward pass, all in the accumulation dtype.

    Attributes:
        out: ``(B, H, Lq, Dv)``.
        lse: ``(B, H, Lq)``; ``-inf`` for a row that sees nothing.
        entropy: ``(B, H, Lq)`` in nats, or None if not asked for.
        max_logit: ``(B, H)``, or None if not asked for.
        max: ``(B, H, Lq)``, the greatest weight, or None if not asked for.
    """

    out: Tensor
    lse: Tensor
    entropy: Tensor | None
    max_logit: Tensor | None = None
    max: Tensor | None = None


def forward(call: Call, q: Tensor, k: Tensor, v: Tensor) -> RowStats:
    """Output and row statistics of a call whose operands hold nothing non-finite that no query may see."""
    dtype = call.accumulation_dtype
    batch, heads, q_len = q.shape[:3]
    out = torch.zeros((batch, heads, q_len, v.shape[-1]), dtype=dtype, device=q.device)
    lse = torch.full((batch, heads, q_len), -torch.inf, dtype=dtype, device=q.device)
    entropy = torch.zeros_like(lse) if "entropy" in call.stats else None
    max_logit = lse.new_full((batch, heads, q_len), -torch.inf) if "max_logit" in call.stats else None
    most = torch.zeros_like(lse) if "max" in call.stats else None
    if call.sinks is not None:
        lse.copy_(call.sinks.to(dtype)[:, None].expand_as(lse))
    q, k, v = prepared(call, q, k, v)
    for step in plan(call):
        rows = _rows(step, call, q, k, v)
        step.store(out, rows.out)
        step.store(lse, rows.lse)
        if entropy is not None and rows.entropy is not None:
            step.store(entropy, rows.entropy)
        if max_logit is not None and rows.max_logit is not None:
            step.store(max_logit, rows.max_logit)
        if most is not None and rows.max is not None:
            step.store(most, rows.max)
    if max_logit is not None:
        max_logit = max_logit.amax(-1) if q_len else max_logit.new_full((batch, heads), -torch.inf)
    return RowStats(out, lse, entropy, max_logit, most)


def prepared(call: Call, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The operands in the accumulation dtype, the queries scaled."""
    dtype = call.accumulation_dtype
    return q.to(dtype) * call.scale, k.to(dtype), v.to(dtype)


def _rows(step: Step, call: Call, q: Tensor, k: Tensor, v: Tensor) -> RowStats:
    entropic = "entropy" in call.stats
    queries = step.queries(q)
    so_far: _Softmax | None = None
    for chunk in step.chunks:
        s = grouped(queries, step.keys(k, chunk))
        at = step.at(call.frame, chunk) if call.score_mods or call.seed is not None else None
        for mod in call.score_mods:
            assert at is not None
            s = mod.modify(s, at)
        s = step.hide(s, call, chunk)
        top = s.amax(-1, keepdim=True)
        if so_far is not None:
            top = torch.maximum(top, so_far.top)
        p = exp_(s.sub_(_finite(top)))
        total = p.sum(-1, keepdim=True)
        moment = -torch.special.entr(p).sum(-1, keepdim=True) if entropic else torch.zeros_like(total)
        if call.seed is not None and at is not None:
            p *= _dropout.keep(call.seed, call.dropout_p, at)
        here = _Softmax(top, total, moment, weigh(p, step.keys(v, chunk)))
        so_far = here if so_far is None else _joined(so_far, here)
    assert so_far is not None
    logit = so_far.top
    if call.sinks is not None:
        so_far = _with_sink(so_far, call.sinks.to(logit.dtype)[step.heads, None, None])
    empty = so_far.total == 0
    total = torch.where(empty, 1, so_far.total)
    kept = 1 if call.seed is None else 1 - call.dropout_p
    out = so_far.acc / (total * kept)
    lse = torch.where(empty, -torch.inf, _finite(so_far.top) + torch.log(total))
    entropy = (torch.log(total) - so_far.moment / total)[..., 0] if entropic else None
    most = torch.where(empty, 0, exp_(logit - _finite(so_far.top)) / total) if "max" in call.stats else None
    return RowStats(out, lse[..., 0], entropy, logit[..., 0], None if most is None else most[..., 0])


class _Softmax(NamedTuple):
    """The softmax of a row over the keys seen so far; see the formulas above."""

    top: Tensor
    total: Tensor
    moment: Tensor
    acc: Tensor


def _finite(top: Tensor) -> Tensor:
    """The shift of the exponentials: the greatest score, 0 for a row that has seen nothing."""
    return torch.where(top == -torch.inf, 0, top)


def _joined(old: _Softmax, new: _Softmax) -> _Softmax:
    """Both, where ``new.top`` is the greatest score of both and the shift of ``new`` already."""
    drop = torch.where(old.total > 0, old.top - _finite(new.top), 0)
    shrink = torch.where(old.total > 0, torch.exp(drop), 0)
    return _Softmax(
        new.top,
        new.total + shrink * old.total,
        new.moment + shrink * (old.moment + old.total * drop),
        new.acc.addcmul_(old.acc, shrink),
    )


def _with_sink(keys: _Softmax, sink: Tensor) -> _Softmax:
    """The sink as one more key, without a value."""
    top = torch.maximum(keys.top, sink)
    share = torch.exp(sink - _finite(top))
    own = _Softmax(top, share, -torch.special.entr(share), torch.zeros_like(keys.acc))
    return _joined(keys, own)

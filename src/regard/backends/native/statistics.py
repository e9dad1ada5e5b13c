"""What can be asked of the weights, by the compiled kernels: one pass, nothing of size Lq x Lk held."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from regard._call import Call
from regard.backends.base import Gathered
from regard.backends.native import masks, scores
from regard.backends.native.plan import Plan, chunks_for, run, view_of
from regard.backends.tile import exp_


def gather(call: Call, lse: Tensor, wanted: Gathered) -> None:
    """Fill what is wanted of the weights ``exp(s - lse)``, with ``lse (B, H, Lq)`` 0 for rows that see nothing."""
    mask = masks.kernel_mask(call.mask, call.frame, call.group)
    plan = Plan(mask, tuple(scores.changes(call)), call.scale, 0.0, None)
    fill(plan, call.q, call.k, call.v, lse.detach().contiguous(), wanted)


def row_statistics(plan: Plan, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, lse: Tensor) -> dict[str, Tensor]:
    """``entropy (B, H, Lq)`` and ``max_logit (B, H)``, those that the plan wants."""
    if not plan.stats:
        return {}
    lse = torch.where(lse == -torch.inf, 0, lse)
    entropy = torch.zeros_like(lse) if "entropy" in plan.stats else None
    top = torch.full_like(lse, -torch.inf) if "max_logit" in plan.stats else None
    if lse.numel() and k.shape[2]:
        fill(plan, q, k, v, lse, Gathered(top=top, entropy=entropy))
    found = {}
    if entropy is not None:
        if sinks is not None:
            surprise = lse - sinks.float()[:, None]
            entropy += exp_(-surprise) * surprise.clamp(max=torch.finfo(surprise.dtype).max)
        found["entropy"] = entropy
    if top is not None:
        found["max_logit"] = top.amax(-1) if top.shape[-1] else top.new_full(top.shape[:-1], -torch.inf)
    return found


def fill(plan: Plan, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, wanted: Gathered) -> None:
    """`gather` by a plan."""
    view = view_of(replace(plan, dropout_p=0.0, seed=None), q, k, v)
    view.lse = lse.data_ptr()
    for n, change in enumerate(plan.changes):
        view.scores[n] = scores.view(change, q.shape[2])
    view.chunks = chunks_for(q.shape[0] * k.shape[1], view.threads, q.shape[2] * view.group)
    lift, factors = wanted.lift or (None, None)
    if lift is not None or wanted.mass is not None or wanted.peak is not None:
        view.chunks = min(view.chunks, view.threads)  # each has a map of its own
    summed = {"received": wanted.received, "mass": wanted.mass, "peak": wanted.peak, "lift": lift}
    parts = {name: x.new_zeros((view.chunks, *x.shape)) for name, x in summed.items() if x is not None}
    for name, x in (("top", wanted.top), ("entropy", wanted.entropy), *parts.items()):
        setattr(view, name, None if x is None else x.data_ptr())
    view.factors = None if factors is None else factors.data_ptr()
    view.row_extent, view.column_extent = wanted.extent or (q.shape[2], k.shape[2])
    for pool in (wanted.mass, wanted.peak, lift):
        if pool is not None:
            view.pool_rows, view.pool_columns = pool.shape[2:]
    if wanted.best is not None:
        values, columns = wanted.best
        view.best_scores, view.best_columns, view.best_count = values.data_ptr(), columns.data_ptr(), values.shape[-1]
    run("regard_statistics", view)
    for name, part in parts.items():
        whole = summed[name]
        assert whole is not None
        whole.copy_(part.sum(0) if name in ("received", "mass") else part.amax(0))

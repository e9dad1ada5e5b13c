"""What can be asked of the weights, by the compiled kernels: one pass, nothing of size Lq x Lk held.

Max, max logit and entropy of the rows come out of the forward pass; the rest needs to know lse first.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from regard._call import Call
from regard.backends.base import Gathered
from regard.backends.native import masks, scores
from regard.backends.native.abi import CallView
from regard.backends.native.plan import Plan, chunks_for, run, view_of


def gather(call: Call, lse: Tensor, wanted: Gathered) -> None:
    """Fill what is wanted of the weights ``exp(s - lse)``, with ``lse (B, H, Lq)`` 0 for rows that see nothing."""
    mask = masks.kernel_mask(call.mask, call.frame, call.group)
    plan = Plan(mask, tuple(scores.changes(call)), call.scale, 0.0, None)
    fill(plan, call.q, call.k, call.v, lse.detach().contiguous(), wanted)


class RowStatistics:
    """Room for the ``wanted`` statistics of the rows, which a forward pass fills.

    Args:
        wanted: out of `STATS`.
        view: the struct of the pass; its lse is one of the outputs.
        lse: ``(B, H, Lq)``.
        norms: ``(B, H, Lq, 2)``, or None where the pass needs none for itself.
    """

    def __init__(self, wanted: tuple[str, ...], view: CallView, lse: Tensor, norms: Tensor | None = None) -> None:
        self._wanted = wanted
        self._entropy = torch.empty_like(lse) if "entropy" in wanted else None
        self._top = torch.empty_like(lse) if "max_logit" in wanted else None
        self._norms = lse.new_empty((*lse.shape, 2)) if "max" in wanted and norms is None else norms
        for name, x in (("entropy", self._entropy), ("top", self._top), ("norms", self._norms)):
            setattr(view, name, None if x is None else x.data_ptr())

    def read(self) -> dict[str, Tensor]:
        """After the pass: ``entropy (B, H, Lq)``, ``max_logit (B, H)``, ``max (B, H, Lq)``."""
        found = {}
        if self._entropy is not None:
            found["entropy"] = self._entropy
        if (top := self._top) is not None:
            found["max_logit"] = top.amax(-1) if top.shape[-1] else top.new_full(top.shape[:-1], -torch.inf)
        if "max" in self._wanted and self._norms is not None:
            # The weight of the greatest score is its row's factor.
            found["max"] = self._norms[..., 1].contiguous()
        return {name: found[name] for name in self._wanted}


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

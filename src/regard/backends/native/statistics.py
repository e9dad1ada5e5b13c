"""What can be asked of the weights, by the compiled kernels: one pass, nothing of size Lq x Lk held."""

from __future__ import annotations

from torch import Tensor

from regard._call import Call
from regard.backends.base import Gathered
from regard.backends.native import masks, scores
from regard.backends.native.function import Plan, chunks_for, run, view_of


def gather(call: Call, lse: Tensor, wanted: Gathered) -> None:
    """Fill what is wanted of the weights ``exp(s - lse)``, with ``lse (B, H, Lq)`` 0 for rows that see nothing."""
    changes = scores.changes(call)
    mask = masks.kernel_mask(call.mask, call.frame, call.group)
    plan = Plan(mask, tuple(changes), call.scale, 0.0, None)
    lse = lse.detach().contiguous()
    view = view_of(plan, call.q, call.k, call.v)
    view.lse = lse.data_ptr()
    for n, change in enumerate(changes):
        view.scores[n] = scores.view(change, call.q.shape[2])
    view.chunks = chunks_for(call.q.shape[0] * call.k.shape[1], view.threads, call.q.shape[2] * call.group)
    summed = {"received": wanted.received, "mass": wanted.mass, "peak": wanted.peak}
    parts = {name: x.new_zeros((view.chunks, *x.shape)) for name, x in summed.items() if x is not None}
    for name, x in (("top", wanted.top), ("entropy", wanted.entropy), *parts.items()):
        setattr(view, name, None if x is None else x.data_ptr())
    for pool in (wanted.mass, wanted.peak):
        if pool is not None:
            view.pool_rows, view.pool_columns = pool.shape[2:]
    if wanted.best is not None:
        values, columns = wanted.best
        view.best_scores, view.best_columns, view.best_count = values.data_ptr(), columns.data_ptr(), values.shape[-1]
    run("regard_statistics", view)
    for name, part in parts.items():
        whole = summed[name]
        assert whole is not None
        whole.copy_(part.amax(0) if name == "peak" else part.sum(0))

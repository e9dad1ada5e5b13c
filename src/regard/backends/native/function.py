"""The one autograd function of the native backend: from tensors straight to the C ABI, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard._derivatives import refuse_second, refuse_several
from regard.backends.native import library, scores
from regard.backends.native.abi import CallView, TensorView, readable
from regard.backends.native.plan import Plan, chunks_for, owners_for, run, view_of
from regard.backends.native.scores import Added
from regard.backends.native.statistics import RowStatistics
from regard.backends.tile import exp_

_TASK_ROWS = 192


class Saved(NamedTuple):
    """The tensors that backward reads.

    Attributes:
        q: ``(B, H, Lq, D)``.
        k: ``(B, Hkv, Lk, D)``.
        v: ``(B, Hkv, Lk, Dv)``.
        sinks: ``(H,)`` or None.
        lse: ``(B, H, Lq)``.
        norms: ``(B, H, Lq, 2)``: each row's greatest score, in the kernels' unit, and the factor of its weights.
        exact_out: ``(B, H, Lq, Dv)``, out before it is rounded to its dtype; it has a unit last stride.
        entropy: ``(B, H, Lq)`` or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor | None
    lse: Tensor
    norms: Tensor
    exact_out: Tensor
    entropy: Tensor | None = None


def forward(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, out: Tensor | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """``out (B, H, Lq, Dv)``, in the given room or in `room_for_out`, ``lse (B, H, Lq)``, and the plan's statistics."""
    out, lse, view = prepared(plan, q, k, v, sinks, out)
    stats = RowStatistics(plan.stats, view, lse)
    run("regard_forward", view)
    return out, lse, stats.read()


def forward_and_save(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, out: Tensor | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor], Saved]:
    """`forward`, and what `backward` needs."""
    out, lse, view = prepared(plan, q, k, v, sinks, out)
    exact = out if out.dtype == torch.float32 else torch.empty_like(out, dtype=torch.float32)
    norms = lse.new_empty((*lse.shape, 2))
    room = RowStatistics(plan.stats, view, lse, norms)
    view.exact_out = None if exact is out else exact.data_ptr()
    run("regard_forward", view)
    stats = room.read()
    return out, lse, stats, Saved(q, k, v, sinks, lse, norms, exact, stats.get("entropy"))


def backward(
    plan: Plan,
    saved: Saved,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    wanted: tuple[bool, ...],
    grad_entropy: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """The gradients of q, k, v, sinks and of every added table; None for an added table that is not ``wanted``."""
    q, k, v, sinks, lse, norms, exact, entropy = saved
    batch, heads, q_len, _ = q.shape
    # A row that sees nothing depends on nothing, whatever comes in there: 0 * NaN is NaN. The kernels leave out rows
    # whose keys the mask hides, all of them; an added -inf may have hidden those of others.
    empty = norms[..., 1] == 0
    added = [change for change in plan.changes if isinstance(change, Added)]
    if added and empty.any():
        grad_out = torch.where(empty[..., None], 0, grad_out)
    grad_out = readable(grad_out)
    grad_lse = None if grad_lse is None else torch.where(lse == -torch.inf, 0, grad_lse).contiguous()
    grad_q, grad_k, grad_v = (x.new_empty(x.shape) for x in (q, k, v))
    delta = None if sinks is None else torch.empty_like(lse)
    view = view_of(plan, q, k, v)
    view.norms, view.exact_out, view.out = norms.data_ptr(), exact.data_ptr(), TensorView.of(exact)
    view.delta = None if delta is None else delta.data_ptr()
    view.grad_out, view.grad_q, view.grad_k, view.grad_v = map(TensorView.of, (grad_out, grad_q, grad_k, grad_v))
    view.grad_lse = None if grad_lse is None else grad_lse.data_ptr()
    if grad_entropy is not None and entropy is not None:
        grad_entropy = torch.where(empty, 0, grad_entropy).contiguous()
        view.entropy, view.grad_entropy = entropy.data_ptr(), grad_entropy.data_ptr()
    view.chunks = owners_for(batch * k.shape[1], view.threads, k.shape[2])
    buffers = {
        change: scores.gradient_buffer(change, view.chunks, batch, heads)
        for change, wants in zip(added, wanted, strict=True)
        if wants
    }
    for n, change in enumerate(plan.changes):
        view.scores[n] = scores.view(change, q_len, buffers.get(change) if isinstance(change, Added) else None)
    run("regard_backward", view)
    grads = [scores.gradient(change, buffers[change]) if change in buffers else None for change in added]
    grad_sinks = None
    if sinks is not None and delta is not None:
        # The sink's value vector is 0, so its score's gradient is its share times -delta; to the entropy it is a key.
        surprise = lse - sinks.float()[:, None]
        share = exp_(-surprise)
        came = -delta if grad_entropy is None else grad_entropy * surprise - delta
        grad_sinks = torch.where(share > 0, share * came, 0).sum((0, 2)).to(sinks.dtype)
    return grad_q, grad_k, grad_v, grad_sinks, *grads


class Attention(torch.autograd.Function):
    """Attention with its first derivative."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, *tables: Tensor
    ) -> tuple[Tensor, ...]:
        out, lse, stats, saved = forward_and_save(plan, q, k, v, sinks)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(stats[name] for name in plan.stats if name != "entropy"))
        # The plan points into the tables; saved here as well, they are checked for changes in place.
        ctx.save_for_backward(*saved, *tables)
        return out, lse, *stats.values()

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, *grad_stats: Tensor | None) -> Any:
        refuse_several(grad_out, grad_lse, *grad_stats)
        # Read once: what checkpointing recomputes is given out a single time.
        tensors = ctx.saved_tensors
        saved = Saved(*tensors[: len(Saved._fields)])
        if grad_out is None:
            grad_out = torch.zeros_like(saved.exact_out, dtype=saved.q.dtype)
        wanted = tuple(ctx.needs_input_grad[5:])
        with torch.no_grad(), library.alone():
            grad_entropy = dict(zip(ctx.plan.stats, grad_stats, strict=True)).get("entropy")
            grads = backward(ctx.plan, saved, grad_out, grad_lse, wanted, grad_entropy)
        given = (grad_out, grad_lse, *grad_stats)
        anchors = (saved.q, saved.k, saved.v, saved.sinks, *tensors[len(Saved._fields) :], *given)
        return None, *refuse_second(grads, anchors)


def room_for_out(q: Tensor, features: int) -> Tensor:
    """New memory for ``out (B, H, Lq, Dv)``, heads and tokens in the order in which q has them.

    A model splits a token's features into heads and joins them again afterwards, which then takes no copy.
    """
    batch, heads, q_len, _ = q.shape
    token, head = (heads * features, features) if q.stride(1) < q.stride(2) else (features, q_len * features)
    # Not a view of other memory: autograd lets no one write into the view that a function returns.
    return q.new_empty_strided((batch, heads, q_len, features), (heads * q_len * features, head, token, 1))


def prepared(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, out: Tensor | None = None
) -> tuple[Tensor, Tensor, CallView]:
    """Room for out and lse, and the call that fills them."""
    out = room_for_out(q, v.shape[3]) if out is None else out
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    view = forward_view(plan, q, k, v, out, sinks)
    view.lse = lse.data_ptr()
    return out, lse, view


def forward_view(plan: Plan, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sinks: Tensor | None) -> CallView:
    """The C struct of a forward pass into ``out``; lse is not asked for."""
    view = view_of(plan, q, k, v)
    view.out = TensorView.of(out)
    if sinks is not None:
        view.sinks_kept = readable(sinks.detach().float())
        view.sinks = view.sinks_kept.data_ptr()
    q_len = q.shape[2]
    for n, change in enumerate(plan.changes):
        view.scores[n] = scores.view(change, q_len)
    tasks = q.shape[0] * k.shape[1] * -(-view.group * q_len // _TASK_ROWS)
    view.chunks = chunks_for(tasks, view.threads, k.shape[2], even=True)
    return view

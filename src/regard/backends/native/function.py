"""The one autograd function of the native backend: from tensors straight to the C ABI, forward and backward."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard._errors import UnsupportedError
from regard.backends.native import library, scores
from regard.backends.native.abi import DTYPES, CallView, TensorView
from regard.backends.native.masks import KernelMask
from regard.backends.native.scores import Added

_BLOCK = 96
_FLAGS = {1: "the kernels ran out of memory", 2: "the compiled kernels belong to another version of regard"}


@dataclass(frozen=True, eq=False)
class Plan:
    """What a call needs besides its differentiable tensors.

    Attributes:
        mask: the mask in the kernels' form.
        changes: the score changes in order; the tables of `Added` are the differentiable inputs themselves.
        scale: factor of ``q kᵀ``.
        dropout_p: probability of dropping a weight.
        seed: of the dropout, or None.
    """

    mask: KernelMask
    changes: tuple[float | Added, ...]
    scale: float
    dropout_p: float
    seed: int | None


def forward(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, *, for_backward: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """``out (B, H, Lq, Dv)``, ``lse (B, H, Lq)``, and for backward ``out`` before it is rounded to its dtype."""
    batch, heads, q_len, _ = q.shape
    exact = out = torch.empty((batch, heads, q_len, v.shape[3]), dtype=q.dtype)
    lse = torch.empty((batch, heads, q_len), dtype=torch.float32)
    sinks = None if sinks is None else sinks.detach().float().contiguous()
    view = _view(plan, q, k, v, lse)
    view.out, view.sinks = TensorView.of(out), None if sinks is None else sinks.data_ptr()
    if for_backward and out.dtype != torch.float32:
        exact = torch.empty_like(out, dtype=torch.float32)
        view.exact_out = exact.data_ptr()
    for n, change in enumerate(plan.changes):
        view.scores[n] = scores.view(change, q_len)
    tasks = batch * k.shape[1] * -(-heads // max(k.shape[1], 1) * q_len // (2 * _BLOCK))
    view.chunks = _chunks(tasks, view.threads, k.shape[2] // (4 * _BLOCK))
    _run("regard_forward", view)
    return out, lse, exact


def backward(
    plan: Plan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    exact: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients of q, k, v, sinks and of every added table; None for an added table that wants none."""
    batch, heads, q_len, _ = q.shape
    grad_out = grad_out if grad_out.stride(-1) == 1 else grad_out.contiguous()
    grad_lse = None if grad_lse is None else grad_lse.contiguous()
    grad_q, grad_k, grad_v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
    delta = torch.empty_like(lse)
    view = _view(plan, q, k, v, lse)
    view.exact_out = exact.data_ptr()
    view.grad_out, view.grad_q, view.grad_k, view.grad_v = map(TensorView.of, (grad_out, grad_q, grad_k, grad_v))
    view.delta = delta.data_ptr()
    view.grad_lse = None if grad_lse is None else grad_lse.data_ptr()
    view.chunks = _chunks(batch * k.shape[1], view.threads, k.shape[2] // (4 * _BLOCK))
    buffers: list[Tensor | None] = []
    for n, change in enumerate(plan.changes):
        buffer = None
        if isinstance(change, Added):
            if wanted[len(buffers)]:
                buffer = scores.gradient_buffer(change, view.chunks, batch, heads)
            buffers.append(buffer)
        view.scores[n] = scores.view(change, q_len, buffer)
    _run("regard_backward", view)
    added = [change for change in plan.changes if isinstance(change, Added)]
    grads = [None if b is None else scores.gradient(c, b) for c, b in zip(added, buffers, strict=True)]
    grad_sinks = None
    if sinks is not None:
        # The sink's value vector is 0, so its score's gradient is its share times -delta.
        share = torch.exp(sinks.float()[:, None] - lse)
        alive = share > 0
        grad_sinks = torch.where(alive, -share * delta, 0).sum((0, 2)).to(sinks.dtype)
    return grad_q, grad_k, grad_v, grad_sinks, *grads


class Attention(torch.autograd.Function):
    """Attention with its first derivative."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, *tables: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, lse, exact = forward(plan, q, k, v, sinks, for_backward=True)
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, sinks, exact, lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> Any:
        q, k, v, sinks, exact, lse = ctx.saved_tensors
        if grad_out is None:
            grad_out = torch.zeros_like(exact, dtype=q.dtype)
        wanted = tuple(ctx.needs_input_grad[5:])
        return None, *_FirstDerivative.apply(  # type: ignore[no-untyped-call]  # torch does not type it
            ctx.plan, q, k, v, sinks, exact, lse, grad_out, grad_lse, wanted
        )


class _FirstDerivative(torch.autograd.Function):
    """`backward`, whose own derivative is refused by name instead of being silently wrong."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *args: Any) -> tuple[Tensor | None, ...]:
        return backward(plan, *args)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise UnsupportedError(
            'backend="native" has no second derivative: one was asked for. Call attention with '
            'backend="reference", which has derivatives of every order.'
        )


def _view(plan: Plan, q: Tensor, k: Tensor, v: Tensor, lse: Tensor) -> CallView:
    """The C struct of a call, without what is only forward's or backward's."""
    view = CallView(
        ctypes.sizeof(CallView), DTYPES[q.dtype], library.threads(), library.parallel(),
        q.shape[0], k.shape[1], q.shape[1] // max(k.shape[1], 1), q.shape[2], k.shape[2], q.shape[3], v.shape[3],
        plan.scale, 1 / (1 - plan.dropout_p),
        TensorView.of(q), TensorView.of(k), TensorView.of(v),
    )  # fmt: skip
    view.lse, view.mask = lse.data_ptr(), plan.mask.view
    view.scores_count, view.dropout = len(plan.changes), plan.seed is not None
    if plan.seed is not None:
        view.seed, view.drop_below = plan.seed, int(plan.dropout_p * 2**32)
    return view


def _chunks(tasks: int, threads: int, most: int) -> int:
    """Into how many parts the keys are split so that every thread has work."""
    if tasks >= threads or tasks == 0:
        return 1
    return max(min(-(-2 * threads // tasks), most), 1)


def _run(name: str, view: CallView) -> None:
    flag = getattr(library.kernels(), name)(view)
    if flag:
        raise RuntimeError(_FLAGS[flag])

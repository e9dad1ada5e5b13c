"""Turning pairs of features by an angle, in one pass over memory where nothing but eager torch looks on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_transformed = torch._C._functorch.peek_interpreter_stack


def turned(x: Tensor, cos: Tensor, sin: Tensor, dim: int, *, half_split: bool) -> Tensor:
    """``x`` with each pair ``(a, b)`` of its first ``dim`` features as ``(a cos - b sin, b cos + a sin)``.

    Computed in float32 (float64 for float64), the result in the dtype of ``x``.

    Args:
        x: ``(…, D)``, ``D >= dim``.
        cos: broadcasts to the pairs ``(…, dim / 2)``.
        sin: likewise.
        dim: even.
        half_split: whether feature ``j`` pairs with ``j + dim / 2``, or even ones with the next.
    """
    working = torch.float64 if x.dtype == torch.float64 else torch.float32
    cos, sin = cos.to(working), sin.to(working)
    transformed = _transformed() is not None or forward_ad._current_level >= 0
    if type(x) is not Tensor or x.dtype != working or transformed or torch.compiler.is_compiling():
        return _by_formula(x, cos, sin, dim, half_split)
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _in_place_of_copies(x, cos, sin, dim, half_split)
    out: Tensor = _Turn.apply(x, cos, sin, dim, half_split)  # type: ignore[no-untyped-call]
    return out


def _by_formula(x: Tensor, cos: Tensor, sin: Tensor, dim: int, half_split: bool) -> Tensor:  # noqa: FBT001
    whole = dim == x.shape[-1]
    a, b = _pairs(x if whole else x[..., :dim], dim, half_split)
    a, b = a.to(cos.dtype), b.to(cos.dtype)
    sides = [a * cos - b * sin, b * cos + a * sin]
    out = (torch.cat(sides, -1) if half_split else torch.stack(sides, -1).flatten(-2)).to(x.dtype)
    return out if whole else torch.cat([out, x[..., dim:]], -1)


def _in_place_of_copies(x: Tensor, cos: Tensor, sin: Tensor, dim: int, half_split: bool) -> Tensor:  # noqa: FBT001
    """The formula, each product written where it belongs; the result is laid out as ``x`` is."""
    out = torch.empty_like(x)
    (a, b), (first, second) = _pairs(x, dim, half_split), _pairs(out, dim, half_split)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    if dim < x.shape[-1]:
        out[..., dim:] = x[..., dim:]
    return out


def _pairs(x: Tensor, dim: int, half_split: bool) -> tuple[Tensor, Tensor]:  # noqa: FBT001
    """Views of the first and of the second feature of every pair."""
    if half_split:
        return x[..., : dim // 2], x[..., dim // 2 : dim]
    return x[..., 0:dim:2], x[..., 1:dim:2]


class _Turn(torch.autograd.Function):
    """A turn is linear, and its gradient the turn back: nothing of ``x`` is kept, and it can be turned again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, dim: int, half_split: bool) -> Tensor:  # noqa: FBT001
        ctx.save_for_backward(cos, sin)
        ctx.rest = dim, half_split
        return _in_place_of_copies(x, cos, sin, dim, half_split)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        dim, half_split = ctx.rest
        return turned(grad, cos, -sin, dim, half_split=half_split), None, None, None, None

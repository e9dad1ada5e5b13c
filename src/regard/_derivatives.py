"""One derivative and no more: a fused backward pass has no derivative of its own, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from regard._errors import UnsupportedError


def once(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors, behind which only a first derivative is possible.

    Differentiating their gradients again raises `UnsupportedError`, which names ``backend="reference"``, instead of
    whatever the kernel behind them would do. Under `torch.compile`, which has no second derivatives, nothing is added.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return tensors
    return tuple(_apply(_Once, t) if t.requires_grad else t for t in tensors)


class _Once(torch.autograd.Function):
    """Identity whose gradient is differentiable in appearance only."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _apply(_NoMore, grad) if torch.is_grad_enabled() else grad


class _NoMore(torch.autograd.Function):
    """Identity without a derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise no_second()


def refuse_second(grads: Sequence[Tensor | None], anchors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Gradients made without a graph, tied to the tensors they depend on so that differentiating them again is refused.

    Args:
        grads: what a backward pass computed under `torch.no_grad`.
        anchors: the tensors that the gradients depend on.
    """
    if not torch.is_grad_enabled():
        return tuple(grads)
    given = [g for g in grads if g is not None]
    tied = iter(_Tied.apply(len(given), *given, *(a for a in anchors if a is not None)))  # type: ignore[no-untyped-call]
    return tuple(None if g is None else next(tied) for g in grads)


class _Tied(torch.autograd.Function):
    """The first ``count`` tensors, depending on all the others in appearance only."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        raise no_second()


def refuse_several(*grads: Tensor | None) -> None:
    """Refuse a batch of gradients, as `torch.autograd.grad(is_grads_batched=True)` and `torch.func.vmap` hand it over.

    Raises:
        UnsupportedError: one of the gradients stands for several.
    """
    kinds = torch._C._functorch
    for grad in grads:
        if grad is not None and (kinds.is_legacy_batchedtensor(grad) or kinds.is_functorch_wrapped_tensor(grad)):
            raise UnsupportedError(_SEVERAL)


def no_second() -> UnsupportedError:
    """The error of a second derivative where there is none."""
    return UnsupportedError(_NO_SECOND)


_NO_SECOND = (
    "this backend has no second derivative: its backward pass is fused. "
    'Use attention(..., backend="reference"), which has every derivative.'
)


_SEVERAL = (
    "this backend's backward pass takes one gradient at a time, and is handed several (is_grads_batched=True, "
    'jacobian(..., vectorize=True), vmap). Differentiate once for each, or use attention(..., backend="reference").'
)


def _apply(function: type[torch.autograd.Function], x: Tensor) -> Tensor:
    y = function.apply(x)
    assert isinstance(y, Tensor)
    return y

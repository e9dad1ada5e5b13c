"""What a score change is: a function of one score and of where it stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard._errors import ArgumentError, describe
from regard._pytree import register

Sums = Callable[[Tensor], Tensor]
"""From one of a score change's tensors to the running sum of its gradient, to be added to in place."""


class ScoreModification(ABC):
    """Base of all score changes: ``s' = modify(s, at)`` on ``scale * q kᵀ``, in the given order, before the mask.

    One with parameters is a `torch.nn.Module`; assign it to a module and its parameters belong to that module. To torch
    a score change is a pytree with its tensors as leaves.
    """

    def __init_subclass__(cls) -> None:
        register(cls)

    @abstractmethod
    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        """The changed scores: ``s`` in the accumulation dtype, ``(…, H, rows, columns)``. This is the definition."""

    def check(self, frame: Frame) -> None:  # noqa: B027  (most score changes fit every call)
        """Raise when this score change's tensors do not fit a call of this size."""

    def tensors(self, at: Coordinates | None = None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """The floating-point tensors that may want a gradient.

        Args:
            at: any one pair of the call, for a score change that has to be tried; default: positions 0 on the CPU.
            dtype: of the call's scores.
        """
        return ()

    def backward(self, s: Tensor, grad: Tensor, at: Coordinates, sums: Sums) -> Tensor:
        """The gradient with respect to ``s``; adds the gradients of `tensors` to their ``sums``.

        The default differentiates `modify` on the tile. A subclass that knows its derivative overrides this.
        """
        wanted = [t for t in self.tensors(at.first(), s.dtype) if t.requires_grad]
        with torch.enable_grad():
            leaf = s.detach().requires_grad_()
            out = self.modify(leaf, at)
        if not out.requires_grad:
            return torch.zeros_like(s)
        grads = torch.autograd.grad(out, [leaf, *wanted], grad, retain_graph=bool(wanted), allow_unused=True)
        for tensor, own in zip(wanted, grads[1:], strict=True):
            if own is not None:
                sums(tensor).add_(own)
        return torch.zeros_like(s) if grads[0] is None else grads[0]

    @property
    def bounded_derivative(self) -> bool:
        """True when the derivative of `modify` is finite wherever it is handed a finite score."""
        return True


def check_device(name: str, tensor: Tensor, frame: Frame) -> None:
    """Raise unless ``tensor`` is on the device of the call."""
    if tensor.device != frame.device:
        raise ArgumentError(
            f"{name} must be on the device of q, k and v ({frame.device}): got {describe(tensor)}. Move it with "
            f".to({str(frame.device)!r})."
        )

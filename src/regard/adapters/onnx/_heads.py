"""Operands of three dims hold their heads side by side."""

from __future__ import annotations

from torch import Tensor

from regard._errors import ShapeError


def split(name: str, x: Tensor, heads: float | None, attribute: str) -> Tensor:
    """``(B, L, heads * D)`` as ``(B, heads, L, D)``; raises ShapeError where the features do not divide."""
    if not heads or heads < 0 or x.shape[-1] % int(heads):
        raise ShapeError(
            f"{name} of 3 dims is split into {attribute} heads, a divisor of its {x.shape[-1]} features: got "
            f"{attribute}={heads!r}."
        )
    separate: Tensor = x.unflatten(-1, (int(heads), -1))
    return separate.transpose(1, 2)

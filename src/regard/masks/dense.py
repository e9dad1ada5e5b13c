"""A mask given as a tensor."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Self

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame, broadcasts
from regard._errors import KindError, ShapeError, describe
from regard.masks.base import Mask, check_device, summary


class Dense(Mask):
    """A bool tensor by row and column; **True means "may attend"**.

    Args:
        allowed: bool, broadcastable to ``(B, H, q_len, k_len)``; ``H`` counts query heads.

    Raises:
        KindError: no bool tensor. A float mask that is added to the scores is `Bias`.
        ShapeError: more than 4 dims, or a size that does not broadcast in the call.
    """

    def __init__(self, allowed: Tensor) -> None:
        if not isinstance(allowed, Tensor) or allowed.dtype != torch.bool:
            raise KindError(
                f"Dense takes a bool tensor, True = may attend: got {describe(allowed)}. A float mask that is added to "
                "the scores is score_mod=Bias(tensor); a mask where True hides becomes Dense(~mask)."
            )
        if allowed.ndim > 4:
            raise ShapeError(f"Dense broadcasts to (B, H, q_len, k_len) and has at most 4 dims: got {allowed.ndim}.")
        self._allowed = allowed

    @property
    def _table(self) -> Tensor:
        return self._allowed.reshape((1,) * (4 - self._allowed.ndim) + tuple(self._allowed.shape))

    def allowed(self, at: Coordinates) -> Tensor:
        table = self._table
        if at.box is not None:
            return table[tuple(s if n > 1 else slice(None) for s, n in zip(at.box, table.shape, strict=True))]
        index = (at.b, at.h, at.i, at.j)
        return table[tuple(x if n > 1 else torch.zeros_like(x) for x, n in zip(index, table.shape, strict=True))]

    def check(self, frame: Frame) -> None:
        check_device("Dense's tensor", self._allowed, frame)
        sizes = (frame.batch, frame.heads, frame.q_len, frame.k_len)
        if not all(broadcasts(have, want) for have, want in zip(self._table.shape, sizes, strict=True)):
            raise ShapeError(
                f"Dense must broadcast to (B, H, q_len, k_len) = {sizes}: got {tuple(self._allowed.shape)}. "
                "H counts query heads."
            )

    def tensors(self) -> tuple[Tensor, ...]:
        return (self._allowed,)

    @property
    def batch(self) -> int:
        return self._table.shape[0]

    @property
    def heads(self) -> int:
        return self._table.shape[1]

    @property
    def extent(self) -> tuple[int | None, int | None]:
        q_len, k_len = (n if n != 1 else None for n in self._table.shape[-2:])
        return q_len, k_len

    def _key(self) -> Hashable:
        return "Dense"

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        return type(self)(*tensors)

    def __repr__(self) -> str:
        return f"Dense({summary(self._allowed)})"

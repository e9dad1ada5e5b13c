"""An additive bias by row and column, fixed or learned (pair biases of AlphaFold, Graphormer)."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame, broadcasts
from regard._errors import KindError, ShapeError, describe
from regard.scores.base import ScoreModification, Sums, check_device
from regard.scores.holder import TensorHolder


class Bias(TensorHolder, ScoreModification):
    """``s' = s + bias[b, h, i, j]``, by row and column; ``-inf`` hides a pair.

    Args:
        bias: any float dtype, broadcastable to ``(B, H, q_len, k_len)``, ``H`` counting query heads. A parameter or a
            tensor that requires a gradient gets one, of the bias's own shape.

    Raises:
        KindError: no float tensor. A bool mask is ``mask=Dense(tensor)``.
        ShapeError: more than 4 dims, or a size that does not broadcast in the call.
    """

    bias: Tensor

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        if not isinstance(bias, Tensor) or not bias.is_floating_point():
            raise KindError(
                f"Bias takes a float tensor that is added to the scores: got {describe(bias)}. A bool mask, True = may "
                "attend, is mask=Dense(tensor)."
            )
        if bias.ndim > 4:
            raise ShapeError(f"Bias broadcasts to (B, H, q_len, k_len) and has at most 4 dims: got {bias.ndim}.")
        self.hold("bias", bias)

    @property
    def _table(self) -> Tensor:
        return self.bias.reshape((1,) * (4 - self.bias.ndim) + tuple(self.bias.shape))

    def _index(self, at: Coordinates) -> tuple[slice | Tensor, ...]:
        sizes = self._table.shape
        if at.box is not None:
            return tuple(s if n > 1 else slice(None) for s, n in zip(at.box, sizes, strict=True))
        return tuple(x if n > 1 else torch.zeros_like(x) for x, n in zip((at.b, at.h, at.i, at.j), sizes, strict=True))

    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        return s + self._table[self._index(at)].to(s.dtype)

    def backward(self, s: Tensor, grad: Tensor, at: Coordinates, sums: Sums) -> Tensor:
        if self.bias.requires_grad:
            total = sums(self.bias).view(self._table.shape)
            index = self._index(at)
            if at.box is not None:
                part = total[index]
                part += grad.sum_to_size(part.shape)
            else:
                total.index_put_(tuple(x for x in index if isinstance(x, Tensor)), grad, accumulate=True)
        return grad

    def check(self, frame: Frame) -> None:
        check_device("Bias", self.bias, frame)
        sizes = (frame.batch, frame.heads, frame.q_len, frame.k_len)
        if not all(broadcasts(have, want) for have, want in zip(self._table.shape, sizes, strict=True)):
            raise ShapeError(
                f"Bias must broadcast to (B, H, q_len, k_len) = {sizes}: got {tuple(self.bias.shape)}. "
                "H counts query heads."
            )

    def tensors(self, at: Coordinates | None = None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        return (self.bias,)

    def extra_repr(self) -> str:
        return f"<{str(self.bias.dtype).removeprefix('torch.')} {tuple(self.bias.shape)}>"

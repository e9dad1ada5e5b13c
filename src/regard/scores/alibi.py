"""Attention with linear biases (ALiBi, Press et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard.scores.base import ScoreModification, Sums, check_device
from regard.scores.holder import TensorHolder


class Alibi(TensorHolder, ScoreModification):
    """``s' = s - slope[h] * |q - k|``: the further a key, the lower its score.

    Args:
        slopes: any float dtype, ``(H,)``, one per query head; a `torch.nn.Parameter` is learned.

    Raises:
        KindError: no float tensor.
        ShapeError: not one slope per query head.
    """

    slopes: Tensor

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        if not isinstance(slopes, Tensor) or not slopes.is_floating_point():
            raise KindError(f"Alibi takes a float tensor of slopes, one per query head: got {describe(slopes)}.")
        if slopes.ndim != 1:
            raise ShapeError(f"Alibi's slopes must be (H,), one per query head: got {tuple(slopes.shape)}.")
        self.hold("slopes", slopes)

    @staticmethod
    def for_heads(num_heads: int) -> Alibi:
        """The paper's slopes: a geometric sequence from ``2^(-8/n)``, interleaved when n is no power of two.

        >>> Alibi.for_heads(4).slopes
        tensor([0.2500, 0.0625, 0.0156, 0.0039])
        """
        if not isinstance(num_heads, int) or num_heads < 1:
            raise ArgumentError(f"Alibi.for_heads takes a positive number of heads: got {describe(num_heads)}.")

        def geometric(n: int) -> list[float]:
            return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

        power = 1 << (num_heads.bit_length() - 1)
        extra = geometric(2 * power)[0::2][: num_heads - power]
        return Alibi(torch.tensor(geometric(power) + extra))

    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        return s - self.slopes.to(s.dtype)[at.h] * (at.q - at.k).abs()

    def backward(self, s: Tensor, grad: Tensor, at: Coordinates, sums: Sums) -> Tensor:
        if self.slopes.requires_grad:
            share = (grad * (at.q - at.k).abs()).sum((-2, -1)).neg()
            heads = at.h.expand(*share.shape, 1, 1).flatten()
            sums(self.slopes).index_add_(0, heads, share.flatten())
        return grad

    def check(self, frame: Frame) -> None:
        check_device("Alibi's slopes", self.slopes, frame)
        if self.slopes.shape[0] != frame.heads:
            raise ShapeError(f"Alibi has {self.slopes.shape[0]} slopes, but the call has {frame.heads} query heads.")

    def tensors(self, at: Coordinates | None = None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        return (self.slopes,)

    def extra_repr(self) -> str:
        return f"<{self.slopes.shape[0]} slopes>"

"""Soft capping of scores (Gemma 2, Gemma Team 2024)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from regard._coordinates import Coordinates
from regard._errors import ArgumentError, KindError, describe
from regard.scores.base import ScoreModification, Sums


@dataclass(frozen=True)
class Softcap(ScoreModification):
    """``s' = cap * tanh(s / cap)``: scores stay within ``±cap``.

    Raises:
        KindError: no number.
        ArgumentError: a cap that is not positive and finite.
    """

    cap: float

    def __post_init__(self) -> None:
        if not isinstance(self.cap, (int, float)) or isinstance(self.cap, bool):
            raise KindError(f"Softcap's cap must be a number: got {describe(self.cap)}.")
        if not (math.isfinite(self.cap) and self.cap > 0):
            raise ArgumentError(f"Softcap's cap must be positive and finite: got {self.cap}.")

    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        return self.cap * torch.tanh(s / self.cap)

    def backward(self, s: Tensor, grad: Tensor, at: Coordinates, sums: Sums) -> Tensor:
        return grad * (1 - torch.tanh(s / self.cap).square())

    def __repr__(self) -> str:
        return f"Softcap({self.cap})"

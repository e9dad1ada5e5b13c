"""Attention inside chunks of equal size (Llama 4's local layers; block-local attention)."""

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard.masks.base import Stateless, checked_int
from regard.masks.intervals import RowIntervals, position_range


class Chunked(Stateless):
    """A query sees the keys of its own chunk: ``q // size == k // size``.

    Raises:
        ArgumentError: a size below 1.

    >>> print((Causal() & Chunked(2)).show(4, 4))
        0 1 2 3
    0   ■ · · ·
    1   ■ ■ · ·
    2   · · ■ ·
    3   · · ■ ■
    """

    def __init__(self, size: int) -> None:
        self.size = checked_int("Chunked's size", size, 1)

    def allowed(self, at: Coordinates) -> Tensor:
        return self._chunk(at.q) == self._chunk(at.k)

    def intervals(self, frame: Frame) -> RowIntervals | None:
        start = self._chunk(frame.q_pos) * self.size
        return position_range(frame, start, start + self.size)

    def _chunk(self, position: Tensor) -> Tensor:
        return torch.div(position, self.size, rounding_mode="floor")

    def __repr__(self) -> str:
        return f"Chunked({self.size})"

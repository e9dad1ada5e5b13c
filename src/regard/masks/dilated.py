"""Strided attention: every ``step``-th key (Sparse Transformer, Child et al. 2019)."""

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard.masks.base import Stateless, checked_int
from regard.masks.blocks import Coverage
from regard.masks.intervals import RowIntervals, full_rows


class Dilated(Stateless):
    """A query sees the keys a multiple of ``step`` away: ``(q - k) % step == 0``.

    Raises:
        ArgumentError: a step below 1.

    >>> print((Causal() & Dilated(2)).show(4, 4))
        0 1 2 3
    0   ■ · · ·
    1   · ■ · ·
    2   ■ · ■ ·
    3   · ■ · ■
    """

    def __init__(self, step: int) -> None:
        self.step = checked_int("Dilated's step", step, 1)

    def allowed(self, at: Coordinates) -> Tensor:
        return torch.remainder(at.q - at.k, self.step) == 0

    def intervals(self, frame: Frame) -> RowIntervals | None:
        return full_rows(frame) if self.step == 1 else None

    def grid(self, frame: Frame, block: tuple[int, int]) -> Tensor:
        if self.step == 1 or not frame.by_default:
            return super().grid(frame, block)
        # The differences q - k inside a block are all the integers from its lowest to its highest.
        q_low, q_high = _spans(frame.q_len, block[0], frame.k_len - frame.q_len, frame.device)
        k_low, k_high = _spans(frame.k_len, block[1], 0, frame.device)
        low, high = q_low[:, None] - k_high, q_high[:, None] - k_low
        some = torch.div(high, self.step, rounding_mode="floor") * self.step >= low
        every = some & (low == high)
        grid = some.to(torch.uint8) * int(Coverage.PARTIAL) + every.to(torch.uint8)
        return grid[None, None]

    def __repr__(self) -> str:
        return f"Dilated({self.step})"


def _spans(length: int, block: int, offset: int, device: torch.device) -> tuple[Tensor, Tensor]:
    low = torch.arange(0, length, block, device=device)
    return low + offset, (low + block).clamp(max=length) - 1 + offset

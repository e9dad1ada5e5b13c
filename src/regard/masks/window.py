"""A sliding window: a token sees its neighbours (Longformer, Beltagy et al. 2020; Mistral, Jiang et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard.masks.base import Stateless, checked_int
from regard.masks.intervals import RowIntervals, position_range


class SlidingWindow(Stateless):
    """A query at ``q`` sees the keys at ``q - left <= k <= q + right``.

    ``left`` and ``right`` count *other* keys, both ends included: ``SlidingWindow(2)`` is three keys wide, itself and
    two before. None means unlimited. Libraries that say "window w" and mean w keys with itself
    (Hugging Face, torchtitan) are ``SlidingWindow.of_width(w)``.

    Args:
        left: keys visible before the query, or None for all.
        right: keys visible after the query, or None for all; 0 makes the window causal.

    Raises:
        ArgumentError: a negative number of keys.
        KindError: no int.

    >>> print(SlidingWindow(1).show(4, 4))
        0 1 2 3
    0   ■ · · ·
    1   ■ ■ · ·
    2   · ■ ■ ·
    3   · · ■ ■
    """

    def __init__(self, left: int | None, right: int | None = 0) -> None:
        self.left = left if left is None else checked_int("SlidingWindow's left", left, 0)
        self.right = right if right is None else checked_int("SlidingWindow's right", right, 0)

    @staticmethod
    def of_width(width: int) -> SlidingWindow:
        """The causal window of ``width`` keys with the query's own: ``of_width(w) == SlidingWindow(w - 1, 0)``."""
        return SlidingWindow(checked_int("of_width's width", width, 1) - 1, 0)

    def allowed(self, at: Coordinates) -> Tensor:
        allowed = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=at.q.device)
        if self.left is not None:
            allowed = at.k >= at.q - self.left
        if self.right is not None:
            allowed = allowed & (at.k <= at.q + self.right)
        return allowed

    def intervals(self, frame: Frame) -> RowIntervals | None:
        low = None if self.left is None else frame.q_pos - self.left
        high = None if self.right is None else frame.q_pos + (self.right + 1)
        return position_range(frame, low, high)

    def __repr__(self) -> str:
        return f"SlidingWindow({self.left}, {self.right})"

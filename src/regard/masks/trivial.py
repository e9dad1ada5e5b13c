"""The two ends of the algebra: every key, and no key."""

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard.masks.base import Stateless
from regard.masks.intervals import RowIntervals, full_rows


class Everything(Stateless):
    """Every query sees every key: full, bidirectional attention. Neutral in ``&``.

    >>> print(Everything().show(2, 3))
        0 1 2
    1   ■ ■ ■
    2   ■ ■ ■
    """

    def allowed(self, at: Coordinates) -> Tensor:
        return torch.ones((1, 1, 1, 1), dtype=torch.bool, device=at.q.device)

    def intervals(self, frame: Frame) -> RowIntervals:
        return full_rows(frame)

    def __repr__(self) -> str:
        return "Everything()"


class Nothing(Stateless):
    """No query sees any key: output 0, weights 0, ``lse = -inf``. Neutral in ``|``."""

    def allowed(self, at: Coordinates) -> Tensor:
        return torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=at.q.device)

    def intervals(self, frame: Frame) -> RowIntervals:
        return full_rows(frame).complement().narrow()

    def __repr__(self) -> str:
        return "Nothing()"

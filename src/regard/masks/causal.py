"""Causal attention: no token sees its future."""

from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard.masks.base import Stateless
from regard.masks.intervals import RowIntervals, position_range


class Causal(Stateless):
    """A query at position ``q`` sees the keys at positions ``k <= q``.

    With fewer queries than keys the default positions align the last query with the last key, so that a decoding
    step sees its whole past; with more queries than keys the first rows see nothing and give 0.

    >>> print(Causal().show(2, 4))
        0 1 2 3
    2   ■ ■ ■ ·
    3   ■ ■ ■ ■
    >>> print(Causal().show(4, 2))
         0 1
    -2   · ·
    -1   · ·
     0   ■ ·
     1   ■ ■
    """

    def allowed(self, at: Coordinates) -> Tensor:
        return at.k <= at.q

    def intervals(self, frame: Frame) -> RowIntervals | None:
        return position_range(frame, None, frame.q_pos + 1)

    def __repr__(self) -> str:
        return "Causal()"

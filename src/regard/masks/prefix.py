"""A prefix that everyone sees (prefix language models, Raffel et al. 2020)."""

from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard.masks.base import Stateless, checked_int
from regard.masks.intervals import RowIntervals, position_range


class Prefix(Stateless):
    """Every query sees the keys at positions ``k < length``.

    A prefix language model reads its prompt in both directions and writes causally: ``Causal() | Prefix(n)``.

    Raises:
        ArgumentError: a negative length.

    >>> print((Causal() | Prefix(2)).show(4, 4))
        0 1 2 3
    0   ■ ■ · ·
    1   ■ ■ · ·
    2   ■ ■ ■ ·
    3   ■ ■ ■ ■
    """

    def __init__(self, length: int) -> None:
        self.length = checked_int("Prefix's length", length, 0)

    def allowed(self, at: Coordinates) -> Tensor:
        return at.k < self.length

    def intervals(self, frame: Frame) -> RowIntervals | None:
        return position_range(frame, None, self.length)

    def __repr__(self) -> str:
        return f"Prefix({self.length})"

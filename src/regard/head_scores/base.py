"""What a head score is, and how many of them share one pass over the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates
from regard.head_scores.material import Material
from regard.weights.stream import Reduction, Tile

Parts = Mapping[str, Tensor]
"""What the shared pass found, by the names under which scores asked for it."""


class HeadScore(ABC):
    """One number a head and batch entry. A value: two of the same class and arguments are the same score."""

    title: ClassVar[str]

    @property
    def name(self) -> str:
        """Under which the score stands in a table."""
        return self.title

    def missing(self, of: Material) -> str | None:
        """Why this layer has no such score, or None."""
        return None

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        """What is needed of the pass over all weights, under names that say it: equal names are computed once."""
        return {}

    @abstractmethod
    def value(self, of: Material, parts: Parts) -> Tensor:
        """The score, float64 ``(B, H)``; NaN where a head has no row to average over."""


class Weighted(Reduction):
    """``Σ_j w_ij f_ij``: ``(B, H, Lq)``.

    Args:
        call: what the weights are of.
        factor: ``f`` on a tile, broadcasting to it; None where it is 0 throughout.
    """

    def __init__(self, call: Call, factor: Callable[[Tile], Tensor | None]) -> None:
        self._factor = factor
        self._sum = call.q.new_zeros(call.q.shape[:3], dtype=call.accumulation_dtype)

    def update(self, tile: Tile) -> None:
        factor = self._factor(tile)
        if factor is not None:
            tile.of_rows(self._sum).add_((tile.weights * factor).sum(-1))

    def finish(self, lse: Tensor) -> Tensor:
        return self._sum


class Visible(Reduction):
    """How many keys each row sees, ``(B, H, Lq)``."""

    def __init__(self, call: Call) -> None:
        self._count = call.q.new_zeros(call.q.shape[:3], dtype=torch.int64)

    def update(self, tile: Tile) -> None:
        tile.of_rows(self._count).add_((tile.s > -torch.inf).sum(-1))

    def finish(self, lse: Tensor) -> Tensor:
        return self._count


def distance(at: Coordinates) -> Tensor:
    """``|q - k|`` by position."""
    return (at.q - at.k).abs()

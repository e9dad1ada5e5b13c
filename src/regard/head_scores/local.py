"""How far a head looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from regard.head_scores.base import HeadScore, Parts, Weighted, distance
from regard.head_scores.material import Material
from regard.weights.stream import Reduction, Tile


@dataclass(frozen=True)
class LocalMass(HeadScore):
    """``mean_i Σ_{|i - j| ≤ w} A_ij``: what stays near (Clark et al. 2019, arXiv:1906.04341). Needs the pass.

    Args:
        width: ``w``, in positions.
    """

    width: int = 16
    title = "local_mass"

    @property
    def name(self) -> str:
        return f"local_mass_{self.width}"

    def missing(self, of: Material) -> str | None:
        return "queries and keys are of two sequences" if of.crosses else None

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        return {self.name: lambda: Weighted(of.call, self._near)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(parts[self.name])

    def _near(self, tile: Tile) -> Tensor | None:
        near = distance(tile.at) <= self.width
        return near if bool(near.any()) else None


@dataclass(frozen=True)
class MeanDistance(HeadScore):
    """``mean_i Σ_j A_ij |i - j|``: the mean attention distance (ViT, Dosovitskiy et al. 2020, arXiv:2010.11929), in
    positions. Needs the pass.
    """

    title = "mean_distance"

    def missing(self, of: Material) -> str | None:
        return "queries and keys are of two sequences" if of.crosses else None

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        return {"distance": lambda: Weighted(of.call, lambda tile: distance(tile.at).to(tile.s.dtype))}

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(parts["distance"])

"""What a head moves, not only where it looks: weights times the length of what they fetch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from regard.head_scores.base import HeadScore, Parts, Weighted
from regard.head_scores.material import Material
from regard.weights.stream import Reduction, Tile


@dataclass(frozen=True)
class ValueWeighted(HeadScore):
    """``mean_i Σ_j A_ij ‖v_j W_O^h‖`` (Kobayashi et al. 2020, arXiv:2004.10102). Needs the pass.

    In units of the residual stream; of ``‖v_j‖`` where the output projection is not known. A sink's value is short: a
    head that rests on it moves little, whatever its weights say.
    """

    title = "value_weighted"

    def missing(self, of: Material) -> str | None:
        return "values were not recorded" if of.value_norms is None else None

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        norms = of.value_norms

        def factor(tile: Tile) -> Tensor | None:
            return None if norms is None else norms[tile.batch, :, None, tile.cols]

        return {"value_weighted": lambda: Weighted(of.call, factor)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(parts["value_weighted"])

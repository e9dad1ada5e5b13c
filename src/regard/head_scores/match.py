"""How much a head looks like a pattern that is given as a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regard._call import Call
from regard.head_scores.base import HeadScore, Parts, Visible, Weighted
from regard.head_scores.material import Material
from regard.masks import Mask
from regard.weights.stream import Reduction, Tile


@dataclass(frozen=True)
class Match(HeadScore):
    """Match to a 0/1 pattern ``P`` (the head detector of TransformerLens, Nanda & Bloom 2022). Needs the pass.

    ``kind="share"``: ``Σ (A ∘ P) / Σ A``, the share of all mass inside the pattern; a pattern of everything gets 1.
    ``kind="difference"``: ``1 - mean |A - P|`` over the visible pairs, high for any head where ``P`` is sparse.

    Args:
        pattern: a mask; what it allows is 1.
        kind: which of the two.
    """

    pattern: Mask
    kind: Literal["share", "difference"] = "share"
    title = "match"

    @property
    def name(self) -> str:
        return f"match_{self.kind}({self.pattern!r})"

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        pattern = self.pattern
        return {
            f"mass in {pattern!r}": lambda: Weighted(of.call, lambda tile: pattern.allowed(tile.at)),
            "mass": lambda: Weighted(of.call, lambda tile: torch.ones((), dtype=tile.s.dtype, device=tile.s.device)),
            f"visible in {pattern!r}": lambda: _VisibleIn(of.call, pattern),
            "visible": lambda: Visible(of.call),
        }

    def value(self, of: Material, parts: Parts) -> Tensor:
        mass_in, mass = (parts[name].to(torch.float64).sum(-1) for name in (f"mass in {self.pattern!r}", "mass"))
        if self.kind == "share":
            return mass_in / mass
        pairs_in, pairs = (
            parts[name].to(torch.float64).sum(-1) for name in (f"visible in {self.pattern!r}", "visible")
        )
        # Inside |A - 1| = 1 - A, outside |A - 0| = A.
        return 1 - ((pairs_in - mass_in) + (mass - mass_in)) / pairs


class _VisibleIn(Visible):
    """How many keys of a pattern each row sees."""

    def __init__(self, call: Call, pattern: Mask) -> None:
        super().__init__(call)
        self._pattern = pattern

    def update(self, tile: Tile) -> None:
        tile.of_rows(self._count).add_(((tile.s > -torch.inf) & self._pattern.allowed(tile.at)).sum(-1))

"""The largest score of a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.head_scores.base import HeadScore, Parts
from regard.head_scores.material import Material
from regard.weights.reductions import MaxLogit as LargestScore
from regard.weights.stream import Reduction


@dataclass(frozen=True)
class MaxLogit(HeadScore):
    """``max_ij s_ij`` over what is visible, after scale and score changes (QK-clip: Kimi K2, Moonshot AI 2025).

    What grows without bound in a training that is about to diverge. Needs the pass.
    """

    title = "max_logit"

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        return {"max_logit": lambda: LargestScore(of.call)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        return parts["max_logit"].to(torch.float64)

"""Keys that most queries read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.head_scores.base import HeadScore, Parts
from regard.head_scores.material import Material
from regard.weights.reductions import Received
from regard.weights.stream import Reduction


@dataclass(frozen=True)
class HeavyHitters(HeadScore):
    """``Σ_{j ∈ top} c_j / Σ_j c_j`` with the received mass ``c_j = Σ_i A_ij`` (H2O, Zhang et al. 2023,
    arXiv:2306.14048): the share of all mass that the most read keys get. Needs the pass.

    The received mass itself, of all queries or of the last ones (SnapKV, Li et al. 2024, arXiv:2404.14469), is
    ``weights.received(queries)``.

    Args:
        share: how many of the keys count as the most read ones, rounded up.
    """

    share: float = 0.05
    title = "heavy_hitters"

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        return {"received": lambda: Received(of.call)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        received = parts["received"].to(torch.float64)
        top = received.topk(math.ceil(self.share * received.shape[-1]), dim=-1).values
        return top.sum(-1) / received.sum(-1)

"""How spread out a head's attention is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.head_scores.base import HeadScore, Parts, Visible
from regard.head_scores.material import Material
from regard.weights.reductions import Entropy as EntropyOfRows
from regard.weights.reductions import Max
from regard.weights.stream import Reduction


@dataclass(frozen=True)
class Entropy(HeadScore):
    """``mean_i H_i`` with ``H_i = -Σ_j A_ij log A_ij``, in nats (Clark et al. 2019, arXiv:1906.04341).

    A learned sink counts as one more outcome. Small entropy throughout goes with unstable training (Zhai et al. 2023,
    arXiv:2303.06296). Needs the pass.
    """

    title = "entropy"

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        return {"entropy": lambda: EntropyOfRows(of.call)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(parts["entropy"])


@dataclass(frozen=True)
class EffectiveTokens(Entropy):
    """``mean_i exp(H_i)``: how many keys a row reads, were they equal: its weights' perplexity. Needs the pass."""

    title = "effective_tokens"

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(parts["entropy"].exp())


@dataclass(frozen=True)
class RelativeEntropy(Entropy):
    """``mean_i H_i / log(visible_i)``: 1 for a head that spreads evenly, over the rows that see two keys or more.

    A learned sink counts as one more visible key. Needs the pass.
    """

    title = "relative_entropy"

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        return {**super().parts(of), "visible": lambda: Visible(of.call)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        outcomes = parts["visible"] + (0 if of.call.sinks is None else 1)
        return of.over_rows(parts["entropy"] / torch.log(outcomes.clamp(min=2)), outcomes >= 2)


@dataclass(frozen=True)
class Confidence(HeadScore):
    """``mean_i max_j A_ij``: how sure a head is (Voita et al. 2019, arXiv:1905.09418). Needs the pass."""

    title = "confidence"

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        return {"max": lambda: Max(of.call)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(parts["max"])

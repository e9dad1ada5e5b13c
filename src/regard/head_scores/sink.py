"""Attention sinks: mass that goes to the first keys whatever they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.head_scores.base import HeadScore, Parts
from regard.head_scores.material import Material


@dataclass(frozen=True)
class SinkMass(HeadScore):
    """``mean_i Σ_{j < m} A_ij``: the share of the first ``m`` keys (StreamingLLM, Xiao et al. 2023, arXiv:2309.17453).

    The first keys are counted from the first one that some query of the sequence sees, behind padding on the left. The
    mean is over the rows that see something. Fast: ``m`` columns.

    Args:
        first: ``m``.
    """

    first: int = 1
    title = "sink_mass"

    @property
    def name(self) -> str:
        return f"sink_mass_{self.first}"

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(_columns(of, self.first).sum(-1))


@dataclass(frozen=True)
class SinkRate(HeadScore):
    """``1[α > ε]`` with ``α = mean_{i ≥ k} A_ik`` for the first key ``k`` (Gu et al. 2024, arXiv:2410.10781).

    1 for a head whose first key gets more than ``ε`` on average over the rows from its own on; the paper's sink rate is
    the mean of it over layers and heads. Fast: one column.

    Args:
        threshold: ``ε``; the paper takes 0.3.
    """

    threshold: float = 0.3
    title = "sink_rate"

    def value(self, of: Material, parts: Parts) -> Tensor:
        k_pos = of.call.frame.k_pos.expand(of.shape[0], -1).gather(1, of.first[:, None])
        alpha = of.over_rows(_columns(of, 1)[..., 0], (of.call.frame.q_pos >= k_pos)[:, None])
        return torch.where(alpha.isnan(), alpha, (alpha > self.threshold).to(alpha.dtype))


@dataclass(frozen=True)
class LearnedSinkShare(HeadScore):
    """``mean_i exp(sink_h - lse_i)``: what a learned sink takes from the keys (gpt-oss, OpenAI 2025).

    1 minus the sum of a row's weights. Fast: no weight is computed. Only for layers with sinks.
    """

    title = "learned_sink_share"

    def missing(self, of: Material) -> str | None:
        return "the layer has no learned sinks" if of.call.sinks is None else None

    def value(self, of: Material, parts: Parts) -> Tensor:
        assert of.call.sinks is not None
        return torch.exp(of.call.sinks.to(of.lse.dtype)[:, None] - of.lse).to(torch.float64).mean(-1)


def _columns(of: Material, count: int) -> Tensor:
    """The weights of the first ``count`` keys, ``(B, H, Lq, count)``."""
    batch, heads, q_len, k_len = of.shape
    cols = of.first[:, None] + torch.arange(min(count, k_len), device=of.lse.device)
    inside = cols < k_len
    rows = torch.arange(q_len, device=of.lse.device)[:, None].expand(q_len, cols.shape[1]).flatten()
    pairs = cols.clamp(max=k_len - 1)[:, None].expand(batch, q_len, -1).flatten(1)
    found = of.at(rows.expand(batch, -1), pairs).view(batch, heads, q_len, -1)
    return found * inside[:, None, None]

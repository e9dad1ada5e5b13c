"""Heads that look a fixed number of positions back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.head_scores.base import HeadScore, Parts
from regard.head_scores.material import Material


@dataclass(frozen=True)
class Offset(HeadScore):
    """``mean_i A_{i, i-o}``: positional heads (Voita et al. 2019, arXiv:1905.09418).

    By position, and over the rows whose key ``o`` positions back exists. Fast: one diagonal.

    Args:
        offset: ``o``; negative looks ahead.
    """

    offset: int = 0
    title = "offset"

    @property
    def name(self) -> str:
        return f"offset_{self.offset}"

    def missing(self, of: Material) -> str | None:
        return "queries and keys are of two sequences" if of.crosses else None

    def value(self, of: Material, parts: Parts) -> Tensor:
        there, weights = diagonal(of, self.offset)
        return of.over_rows(weights, there[:, None])


@dataclass(frozen=True)
class PreviousToken(Offset):
    """``mean_{i ≥ 1} A_{i, i-1}``: previous-token heads (Elhage et al. 2021, *A Mathematical Framework for Transformer
    Circuits*), `Offset` of 1.
    """

    offset: int = 1

    @property
    def name(self) -> str:
        return "previous_token"


def diagonal(of: Material, offset: int) -> tuple[Tensor, Tensor]:
    """Which rows have a key ``offset`` positions back, bool ``(B, Lq)``, and its weights ``(B, H, Lq)``."""
    batch, _, q_len, k_len = of.shape
    k_pos = of.call.frame.k_pos.expand(batch, -1)
    wanted = (of.call.frame.q_pos - offset).expand(batch, -1).contiguous()
    ordered, order = k_pos.sort(dim=1, stable=True)
    place = torch.searchsorted(ordered.contiguous(), wanted).clamp(max=max(k_len - 1, 0))
    there = ordered.gather(1, place) == wanted
    cols = order.gather(1, place)
    rows = torch.arange(q_len, device=cols.device).expand(batch, -1)
    return there, of.at(rows, cols) * there[:, None]

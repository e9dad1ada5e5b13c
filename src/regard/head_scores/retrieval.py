"""Heads that fetch what a question asks for out of a long text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.head_scores.base import HeadScore, Parts
from regard.head_scores.material import Material

_ROWS = 64


@dataclass(frozen=True)
class Retrieval(HeadScore):
    """Retrieval heads (Wu et al. 2024, arXiv:2404.15574): how much of a needle a head copies while it is generated.

    ``1 / |needle|`` for every step whose largest weight lies on a key of the needle that is the token then generated.
    A head with more than 0.1 counts as a retrieval head in the paper. Fast: one row a step.

    Args:
        needle: positions ``(start, stop)`` of the needle's tokens.
        answer: positions ``(start, stop)`` of the generated tokens; the step that generates a token is the query before
            it.
    """

    needle: tuple[int, int]
    answer: tuple[int, int]
    title = "retrieval"

    def missing(self, of: Material) -> str | None:
        if of.crosses or of.ids is None:
            return "the tokens' ids are not known"
        return _outside({"needle": self.needle, "answer": self.answer}, of.ids.shape[1])

    def value(self, of: Material, parts: Parts) -> Tensor:
        assert of.ids is not None
        start, stop = self.needle
        score = torch.zeros(of.shape[:2], dtype=torch.float64, device=of.lse.device)
        own = of.own[0]
        steps = ((own >= self.answer[0] - 1) & (own < self.answer[1] - 1)).nonzero()[:, 0]
        for rows in steps.split(_ROWS):
            best = of.rows_of(rows).argmax(-1)
            fetched = of.ids[:, None].expand(-1, best.shape[1], -1).gather(2, best)
            generated = of.ids[:, own[rows] + 1][:, None]
            score += ((best >= start) & (best < stop) & (fetched == generated)).sum(-1)
        return score / (stop - start)


@dataclass(frozen=True)
class QueryFocusedRetrieval(HeadScore):
    """``1/|Q| Σ_{i ∈ Q} Σ_{j ∈ gold} A_ij``: query-focused retrieval heads (QRHead, Zhang et al. 2025,
    arXiv:2506.09944).

    What the tokens of the question give to the passage that answers it. Fast: the question's rows.

    Args:
        question: positions ``(start, stop)`` of the question's tokens.
        gold: positions ``(start, stop)`` of the passage.
    """

    question: tuple[int, int]
    gold: tuple[int, int]
    title = "query_focused_retrieval"

    def missing(self, of: Material) -> str | None:
        if of.crosses:
            return "queries and keys are of two sequences"
        return _outside({"question": self.question, "gold": self.gold}, of.shape[3])

    def value(self, of: Material, parts: Parts) -> Tensor:
        own = of.own[0]
        asked = ((own >= self.question[0]) & (own < self.question[1])).nonzero()[:, 0]
        total = torch.zeros(of.shape[:2], dtype=torch.float64, device=of.lse.device)
        for rows in asked.split(_ROWS):
            total += of.rows_of(rows)[..., self.gold[0] : self.gold[1]].sum((-1, -2))
        return total / len(asked) if len(asked) else total + torch.nan


def _outside(spans: dict[str, tuple[int, int]], length: int) -> str | None:
    for name, (start, stop) in spans.items():
        if not 0 <= start < stop <= length:
            return f"{name}={(start, stop)} is no span of the {length} tokens"
    return None

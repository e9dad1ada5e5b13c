"""What the heads of a trained model do on one passage: the page, and the heads that score highest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import regard as rg
from regard.lm import LanguageModel, Run

_VISIBLE = {"\n": "↵", " ": "␣"}


@dataclass(frozen=True)
class Finding:
    """The head that scores highest.

    Attributes:
        layer: its layer's number.
        head: its own.
        value: its score.
        score: what it says.
    """

    layer: int
    head: int
    value: float
    score: str


@torch.no_grad()
def look(run: Run, model: LanguageModel, passage: str, path: Path) -> list[Finding]:
    """Write the page of every head's weights on ``passage``, and name the head that scores highest by each score."""
    ids = torch.tensor(run.tokenizer.encode(passage)[: run.config.context_length])
    words = [run.tokenizer.decode([token]) for token in ids.tolist()]
    with rg.record(model, tokens=[_VISIBLE.get(word, word) for word in words]) as rec:
        model(ids[None].to(next(model.parameters()).device))
    # One context is short enough to hold its weights: (layers, heads, L, L).
    weights = torch.cat([layer.weights.dense() for layer in rec.layers]).cpu()
    scores = {name: (weights * pairs).sum(-1).mean(-1) for name, pairs in _pairs(ids).items()}
    rec.save_html(path, scores={name: grid.tolist() for name, grid in scores.items()})
    found = []
    for name, grid in scores.items():
        layer, head = divmod(int(grid.argmax()), grid.shape[1])
        found.append(Finding(layer, head, float(grid[layer, head]), name))
    return found


def _pairs(ids: Tensor) -> dict[str, Tensor]:
    """What counts for each score, ``(L, L)``: a head's score is the mean, over its queries, of the mass there."""
    q, k = torch.arange(len(ids))[:, None], torch.arange(len(ids))
    same = ids[:, None] == ids
    followed = torch.zeros_like(same)
    followed[:, 1:] = same[:, :-1]
    return {
        "attention to the character just before": (q - k == 1).float(),
        "attention to the first character": ((k == 0) & (q > 0)).float(),
        "attention to earlier copies of the same character": (same & (k < q)).float(),
        "attention to what followed an earlier copy (induction)": (followed & (k <= q) & (k > 0)).float(),
        "mean distance of what it looks at, in characters": (q - k).clamp(min=0).float(),
    }

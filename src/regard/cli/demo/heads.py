"""What the heads of a trained model do on one passage: the page, and the heads that score highest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

import regard as rg
from regard.lm import LanguageModel, Run

_VISIBLE = {"\n": "↵", " ": "␣"}
SENTENCES = {
    "previous_token": "looks at the character just before",
    "prefix_matching": "looks at what came after an earlier copy of the character (induction)",
    "duplicate_token": "looks at earlier copies of the character itself",
    "sink_mass_1": "rests on the first character",
    "mean_distance": "looks farthest back: characters, on average",
}
"""The head scores that a reader of the demo is told of, and what a head with a high one does."""


@dataclass(frozen=True)
class Finding:
    """The head that scores highest.

    Attributes:
        layer: its layer's number.
        head: its own.
        value: its score.
        score: the score's name in `regard.head_scores`.
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
    scores = rec.head_scores(list(SENTENCES))
    rec.save_html(path, scores=scores, title=f"What the heads of a model of {run.source} learned")
    found = []
    for name in SENTENCES:
        best = scores.sort(name)
        found.append(Finding(best.heads[0].layer, best.heads[0].head, best.mean[name][0], name))
    return found

"""Head scores of whole records: one shared pass over each layer, then an average over prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from regard._autocast import without_autocast
from regard._errors import ArgumentError, KindError, describe
from regard.head_scores.base import HeadScore
from regard.head_scores.entropy import Confidence, EffectiveTokens, Entropy, RelativeEntropy
from regard.head_scores.local import LocalMass, MeanDistance
from regard.head_scores.logit import MaxLogit
from regard.head_scores.material import Material
from regard.head_scores.offset import PreviousToken
from regard.head_scores.received import HeavyHitters
from regard.head_scores.repeats import DuplicateToken, Induction, PrefixMatching
from regard.head_scores.sink import LearnedSinkShare, SinkMass, SinkRate
from regard.head_scores.table import Head, HeadScores
from regard.head_scores.value_weighted import ValueWeighted
from regard.weights.kernels import gathered
from regard.weights.part import finite
from regard.weights.stream import Reduction, stream

DEFAULT: tuple[HeadScore, ...] = (
    SinkMass(1),
    SinkMass(4),
    SinkRate(),
    LearnedSinkShare(),
    PreviousToken(),
    Induction(),
    PrefixMatching(),
    DuplicateToken(),
    Entropy(),
    EffectiveTokens(),
    RelativeEntropy(),
    Confidence(),
    HeavyHitters(),
    LocalMass(),
    MeanDistance(),
    MaxLogit(),
    ValueWeighted(),
)
"""The scores that need no argument."""

Which = str | HeadScore | Sequence[str | HeadScore] | None


def chosen(names: Which) -> tuple[HeadScore, ...]:
    """The scores that are asked for, by name or as themselves; all of `DEFAULT` for None.

    Raises:
        ArgumentError: an unknown name.
        KindError: something else than names and scores.
    """
    if names is None:
        return DEFAULT
    given = [names] if isinstance(names, str | HeadScore) else list(names)
    known = {score.name: score for score in DEFAULT}
    found = []
    for one in given:
        if isinstance(one, HeadScore):
            found.append(one)
        elif not isinstance(one, str):
            raise KindError(f"head scores are chosen by name or given as a HeadScore: got {describe(one)}.")
        elif one in known:
            found.append(known[one])
        else:
            raise ArgumentError(
                f"head scores are {', '.join(known)}, and those of regard.head_scores that take arguments, such as "
                f"Offset(3): got {one!r}."
            )
    return tuple(found)


@torch.no_grad()
def scores_of(of: Material, scores: Sequence[HeadScore]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each score of one layer, float64 ``(B, H)``, and the reason for each that it does not have.

    All that need the weights of every pair share one pass over them, which the compiled kernels make where entropy,
    confidence, the largest logit and received mass are all that is asked.
    """
    missing = {score.name: why for score in scores if (why := score.missing(of)) is not None}
    present = [score for score in scores if score.name not in missing]
    wanted = {name: make for score in present for name, make in score.parts(of).items()}
    with without_autocast(of.call.q.device):
        parts = dict(zip(wanted, _pass(of, [make() for make in wanted.values()]), strict=True))
        return {score.name: score.value(of, parts).to(torch.float64).cpu() for score in present}, missing


def _pass(of: Material, reductions: list[Reduction]) -> list[Tensor]:
    """One pass over the weights: by the compiled kernels if they know all that is asked, else tile by tile."""
    lse = finite(of.lse)
    if reductions and gathered(of.call, lse, reductions):
        return [reduction.finish(lse) for reduction in reductions]
    return stream(of.call, of.lse, reductions) if reductions else []


class Scored(NamedTuple):
    """A layer in a run: its number, its name, its heads' numbers, and what its scores are computed from."""

    number: int
    name: str
    heads: tuple[int, ...]
    material: Material


def table_of(runs: Sequence[Sequence[Scored]], names: Which = None) -> HeadScores:
    """The scores of every head, averaged over the prompts: the batch entries of every run.

    Args:
        runs: the layers of each run.
        names: as in `chosen`.

    Raises:
        ArgumentError: an unknown name; scores that were asked for and that no layer has.
        KindError: something else than names and scores.
    """
    scores = chosen(names)
    values: dict[Head, dict[str, list[float]]] = {}
    absent: dict[str, str] = {}
    for run in runs:
        for number, name, heads, material in run:
            found, missing = scores_of(material, scores)
            absent |= missing
            for n, head in enumerate(heads):
                row = values.setdefault(Head(number, name, head), {})
                for score, value in found.items():
                    row.setdefault(score, []).extend(x for x in value[:, n].tolist() if not math.isnan(x))
    present = [score.name for score in scores if any(score.name in row for row in values.values())]
    missing = {name: why for name, why in absent.items() if name not in present}
    if names is not None and missing:
        raise ArgumentError("; ".join(f"{name}: {why}" for name, why in missing.items()) + ".")
    mean = {name: tuple(_mean(row.get(name, [])) for row in values.values()) for name in present}
    error = {name: tuple(_error(row.get(name, [])) for row in values.values()) for name in present}
    prompts = sum(run[0].material.shape[0] for run in runs if run)
    return HeadScores(tuple(values), mean, error, prompts, missing)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _error(values: list[float]) -> float:
    """The standard error of the mean, ``s / √n``."""
    if len(values) < 2:
        return math.nan
    mean = _mean(values)
    return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values))

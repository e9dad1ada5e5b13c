"""Training the three models alike, and measuring what they recall at each distance."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from regard._errors import ArgumentError
from regard.masks.base import checked_int
from regard.recall.model import KINDS, Recaller, mixer_size
from regard.recall.task import KEYS, VALUES, ask

NEAR = 0.05
"""A model that answers at most this share of the questions fewer than another keeps up with it."""


@dataclass(frozen=True)
class Experiment:
    """The settings; every model gets the same sequences in the same order.

    Attributes:
        distances: items between the one that is asked for and the question, the item with it.
        lengths: items of the sequences that are trained on, mostly few (a length ``n`` with probability ``∝ 1/n²``).
        steps: optimizer steps of each model.
        batch: sequences a step.
        questions: questions a sequence in training, each of which comes alone; shorter sequences have one an item.
        width: features of a token.
        learning_rates: each model is trained for ``trial_steps`` with each of these, and then anew with the one that
            recalled best. A rate is the highest value: it rises in a twentieth of the steps, then falls to 0 evenly.
        trial_steps: steps of a trial.
        tested: sequences a distance in the test.
        seed: of weights and sequences.

    Raises:
        KindError: a setting that is no number.
        ArgumentError: one outside its domain.
    """

    distances: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)
    lengths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    steps: int = 3000
    batch: int = 64
    questions: int = 16
    width: int = 64
    learning_rates: tuple[float, ...] = (5e-3, 1e-2, 2e-2)
    trial_steps: int = 300
    tested: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "trial_steps", "batch", "questions", "width", "tested"):
            checked_int(name, getattr(self, name), 1)
        checked_int("seed", self.seed, 0)
        for name in ("distances", "lengths"):
            given: tuple[int, ...] = getattr(self, name)
            if not given or not all(1 <= n <= KEYS for n in given):
                raise ArgumentError(f"{name} go from 1 to the {KEYS} different keys: got {given}.")
        if not self.learning_rates or not all(rate > 0 for rate in self.learning_rates):
            raise ArgumentError(f"learning_rates are at least one, all above 0: got {self.learning_rates}.")


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        experiment: the settings.
        parameters: of the layer that mixes tokens, by kind.
        accuracy: share of right answers at each distance, by kind.
        learning_rates: the one chosen out of the experiment's, by kind.
        seconds: of trials and training, by kind.
    """

    experiment: Experiment
    parameters: dict[str, int] = field(default_factory=dict)
    accuracy: dict[str, list[float]] = field(default_factory=dict)
    learning_rates: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return {**dataclasses.asdict(self), "chance": 1 / VALUES}

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> Result:
        """The result whose `record` this is."""
        settings: dict[str, Any] = {
            key: tuple(x) if isinstance(x, list) else x for key, x in record["experiment"].items()
        }
        rest = {f.name: record[f.name] for f in dataclasses.fields(cls) if f.name != "experiment"}
        return cls(Experiment(**settings), **rest)

    def recalls(self, kind: str) -> list[int]:
        """The distances at which a model answers at least nine questions in ten."""
        return [d for d, share in zip(self.experiment.distances, self.accuracy[kind], strict=True) if share >= 0.9]

    def keeps_up(self, kind: str) -> list[int]:
        """The distances at which it keeps up with attention.

        There it answers at most `NEAR` of all questions fewer, and twice as many as by guessing.
        """
        pairs = zip(self.accuracy["attention"], self.accuracy[kind], strict=True)
        enough = [theirs >= max(ours - NEAR, 2 / VALUES) for ours, theirs in pairs]
        return [d for d, yes in zip(self.experiment.distances, enough, strict=True) if yes]

    def statements(self) -> list[str]:
        """What the numbers say: how far each model recalls, and where recurrence keeps up with attention."""
        rates, last = self.experiment.learning_rates, self.experiment.distances[-1]
        said = [f"learning rates: {', '.join(f'{kind} {rate:g}' for kind, rate in self.learning_rates.items())}"]
        said[0] += f", each the best of {_listed(rates)} in {self.experiment.trial_steps} steps." * (len(rates) > 1)
        for kind, shares in self.accuracy.items():
            good = self.recalls(kind)
            far = f"at {_listed(good)}" if good else "at none of the distances"
            said.append(f"{kind} answers at least 9 in 10 questions {far}; at {last} it answers {shares[-1]:.0%}.")
        for kind in (kind for kind in self.accuracy if kind != "attention" and "attention" in self.accuracy):
            near = self.keeps_up(kind)
            where = f"at {_listed(near)}" if near else "at none of these distances"
            said.append(f"{kind} keeps up with attention (within {NEAR:.0%}) {where}.")
        return said


def run(
    experiment: Experiment, kinds: Sequence[str] = KINDS, tell: Callable[[str, int], None] = lambda kind, step: None
) -> Result:
    """Train and measure each kind of model; ``tell(kind, step)`` is called after each step, trials counted first."""
    result = Result(experiment)
    for kind in kinds:
        began, done = time.perf_counter(), 0

        def stepped(kind: str = kind) -> None:
            nonlocal done
            done += 1
            tell(kind, done)

        rates = experiment.learning_rates
        if len(rates) > 1:
            right = [_tried(kind, experiment, rate, stepped) for rate in rates]
            rates = (rates[right.index(max(right))],)
        model = _trained(kind, experiment, rates[0], experiment.steps, experiment.seed, stepped)
        result.seconds[kind] = time.perf_counter() - began
        result.learning_rates[kind] = rates[0]
        result.parameters[kind] = mixer_size(model)
        result.accuracy[kind] = [_accuracy(model, experiment, distance) for distance in experiment.distances]
    return result


def total_steps(experiment: Experiment) -> int:
    """The steps of one kind of model, trials and training."""
    trials = len(experiment.learning_rates) if len(experiment.learning_rates) > 1 else 0
    return trials * experiment.trial_steps + experiment.steps


def _tried(kind: str, experiment: Experiment, rate: float, tell: Callable[[], None]) -> float:
    """The mean share of right answers over all distances after a trial, whose sequences the test does not have."""
    other = dataclasses.replace(experiment, seed=experiment.seed + 1)
    model = _trained(kind, other, rate, experiment.trial_steps, experiment.seed, tell)
    return sum(_accuracy(model, other, distance) for distance in experiment.distances)


def _trained(
    kind: str, experiment: Experiment, rate: float, steps: int, weights_seed: int, tell: Callable[[], None]
) -> Recaller:
    with torch.random.fork_rng():
        torch.manual_seed(weights_seed)
        longest = max(*experiment.distances, *experiment.lengths)
        model = Recaller(kind, experiment.width, longest + experiment.questions)
    draw = torch.Generator().manual_seed(experiment.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    weights = torch.tensor([1 / n**2 for n in experiment.lengths], dtype=torch.float64)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / max(steps / 20, 1), 1 - step / steps)
        length = experiment.lengths[int(torch.multinomial(weights, 1, generator=draw))]
        given = ask(experiment.batch, length, draw, questions=experiment.questions)
        loss = F.cross_entropy(model(given).flatten(0, 1), given.answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tell()
    return model


@torch.no_grad()
def _accuracy(model: Recaller, experiment: Experiment, distance: int) -> float:
    """The share of right answers about the first of ``distance`` items, on sequences that were not trained on."""
    draw = torch.Generator().manual_seed(experiment.seed + 1_000_003 * distance)
    right = 0
    for part in torch.arange(experiment.tested).split(experiment.batch):
        given = ask(len(part), distance, draw)
        right += int((model(given).argmax(-1) == given.answers).sum())
    return right / experiment.tested


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)

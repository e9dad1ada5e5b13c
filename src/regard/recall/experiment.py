"""Training the three models alike, and measuring what they recall at each distance."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from regard._errors import ArgumentError
from regard.masks.base import checked_int
from regard.recall.model import KINDS, Recaller, mixer_size
from regard.recall.task import KEYS, VALUES, ask


@dataclass(frozen=True)
class Experiment:
    """The settings; every model gets the same sequences in the same order.

    Attributes:
        distances: items between the one that is asked for and the question, the item with it; also the lengths that
            are trained on, each as often as it is short (a length ``n`` with probability ``∝ 1/n``).
        steps: optimizer steps of each model.
        batch: sequences a step.
        questions: questions a sequence in training.
        width: features of a token.
        learning_rate: its highest value; it rises in 50 steps and falls to 0 along a line.
        tested: sequences a distance in the test.
        seed: of weights and sequences.

    Raises:
        KindError: a setting that is no number.
        ArgumentError: one outside its domain.
    """

    distances: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    steps: int = 1200
    batch: int = 64
    questions: int = 16
    width: int = 64
    learning_rate: float = 5e-3
    tested: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "questions", "width", "tested"):
            checked_int(name, getattr(self, name), 1)
        checked_int("seed", self.seed, 0)
        if not self.distances or not all(1 <= n <= KEYS for n in self.distances):
            raise ArgumentError(f"distances go from 1 to the {KEYS} different keys: got {self.distances}.")


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        experiment: the settings.
        parameters: of the layer that mixes tokens, by kind.
        accuracy: share of right answers at each distance, by kind.
        seconds: of training, by kind.
    """

    experiment: Experiment
    parameters: dict[str, int] = field(default_factory=dict)
    accuracy: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return {**dataclasses.asdict(self), "chance": 1 / VALUES}

    def statements(self, margin: float = 0.05) -> list[str]:
        """What the numbers say: how far each model recalls, and where recurrence keeps up with attention."""
        distances = self.experiment.distances
        said = []
        for kind, shares in self.accuracy.items():
            good = [d for d, share in zip(distances, shares, strict=True) if share >= 0.9]
            far = f"at {_listed(good)}" if good else "at none of the distances"
            said.append(
                f"{kind} answers at least 9 in 10 questions {far}; at {distances[-1]} it answers {shares[-1]:.0%}."
            )
        for kind in (kind for kind in self.accuracy if kind != "attention" and "attention" in self.accuracy):
            near = [
                d
                for d, ours, theirs in zip(distances, self.accuracy["attention"], self.accuracy[kind], strict=True)
                if theirs >= ours - margin
            ]
            where = f"at {_listed(near)}" if near else "at none of these distances"
            said.append(f"{kind} keeps up with attention (within {margin:.0%}) {where}.")
        return said


def run(
    experiment: Experiment, kinds: Sequence[str] = KINDS, tell: Callable[[str, int], None] = lambda kind, step: None
) -> Result:
    """Train and measure each kind of model; ``tell(kind, step)`` is called after each step."""
    result = Result(experiment)
    for kind in kinds:
        torch.manual_seed(experiment.seed)
        model = Recaller(kind, experiment.width, max(experiment.distances) + experiment.questions)
        began = time.perf_counter()
        _train(model, experiment, lambda step, kind=kind: tell(kind, step))  # type: ignore[misc]
        result.seconds[kind] = time.perf_counter() - began
        result.parameters[kind] = mixer_size(model)
        result.accuracy[kind] = [_accuracy(model, experiment, distance) for distance in experiment.distances]
    return result


def _train(model: Recaller, experiment: Experiment, tell: Callable[[int], None]) -> None:
    draw = torch.Generator().manual_seed(experiment.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=experiment.learning_rate, weight_decay=0.0)
    weights = torch.tensor([1 / n for n in experiment.distances], dtype=torch.float64)
    for step in range(experiment.steps):
        for group in optimizer.param_groups:
            group["lr"] = experiment.learning_rate * min((step + 1) / 50, 1 - step / experiment.steps)
        length = experiment.distances[int(torch.multinomial(weights, 1, generator=draw))]
        given = ask(experiment.batch, length, draw, questions=experiment.questions)
        loss = F.cross_entropy(model(given).flatten(0, 1), given.answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tell(step + 1)


@torch.no_grad()
def _accuracy(model: Recaller, experiment: Experiment, distance: int) -> float:
    """The share of right answers about the first of ``distance`` items, on sequences that were not trained on."""
    draw = torch.Generator().manual_seed(experiment.seed + 1_000_003 * distance)
    right = 0
    for part in torch.arange(experiment.tested).split(experiment.batch):
        given = ask(len(part), distance, draw)
        right += int((model(given).argmax(-1) == given.answers).sum())
    return right / experiment.tested


def _listed(distances: Sequence[int]) -> str:
    return ", ".join(map(str, distances))

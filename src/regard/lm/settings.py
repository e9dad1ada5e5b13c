"""How a model is trained: every number that decides which weights come out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from regard._errors import ArgumentError, KindError, describe
from regard.masks.base import checked_int


@dataclass(frozen=True)
class Training:
    """The settings of a training. Two trainings alike in these, the model and the text give the same weights.

    Attributes:
        steps: optimizer steps.
        batch: sequences of one forward pass, over all processes.
        accumulate: forward passes whose gradients one step adds up.
        learning_rate: its highest value.
        warmup: steps in which it rises from 0; after them it falls along a half cosine.
        final_share: the part of ``learning_rate`` that is left at the last step.
        weight_decay: AdamW's (Loshchilov and Hutter 2019), of matrices only.
        clip: the greatest norm of all gradients together.
        held_out: the share of the text, from its end, that is never trained on.
        evaluate_every: steps between two looks at the held-out text.
        evaluate_tokens: how many of its tokens a look takes, spread evenly.
        bf16: whether the forward pass runs in bfloat16 under autocast.
        seed: of first weights, order of the text and dropout.

    Raises:
        KindError: a number of the wrong type.
        ArgumentError: one outside its domain.
    """

    steps: int = 2000
    batch: int = 16
    accumulate: int = 1
    learning_rate: float = 2e-3
    warmup: int = 100
    final_share: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    held_out: float = 0.1
    evaluate_every: int = 200
    evaluate_tokens: int = 16384
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "evaluate_every", "evaluate_tokens"):
            checked_int(name, getattr(self, name), 1)
        for name in ("warmup", "seed"):
            checked_int(name, getattr(self, name), 0)
        for name, low, high in (
            ("learning_rate", 0.0, math.inf),
            ("final_share", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
            ("clip", 0.0, math.inf),
            ("held_out", 0.0, 0.5),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise KindError(f"{name} must be a number: got {describe(value)}.")
            if not low <= value <= high:
                raise ArgumentError(f"{name} must be from {low:g} to {high:g}: got {value:g}.")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of step ``step``, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


@dataclass(frozen=True)
class Evaluation:
    """One look at how training goes. Losses are in nats a token.

    Attributes:
        step: steps done.
        train: mean loss of the steps since the last look.
        held_out: loss on the held-out text.
        per_character: ``held_out`` in nats a character, which compares tokenizers.
    """

    step: int
    train: float
    held_out: float
    per_character: float

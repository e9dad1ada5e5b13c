"""Text from a model, token by token, with caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regard._errors import ArgumentError
from regard.lm.model import LanguageModel
from regard.masks.base import checked_int


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits.

    Attributes:
        temperature: logits are divided by it; below 1 is safer, above 1 more varied, 0 takes the most likely token.
        top_k: keep the k most likely tokens (Fan et al. 2018); None: all.
        top_p: keep the fewest tokens whose probabilities reach this sum (Holtzman et al. 2020); 1: all.
        seed: of the draws.

    Raises:
        ArgumentError: a number outside its domain.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ArgumentError(f"temperature must be at least 0: got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ArgumentError(f"top_p must be above 0 and at most 1: got {self.top_p}.")
        if self.top_k is not None:
            checked_int("top_k", self.top_k, 1)
        checked_int("seed", self.seed, 0)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities ``(vocabulary,)`` of the next token, from logits ``(vocabulary,)``."""
        if self.temperature == 0:
            return torch.zeros_like(logits).index_fill_(0, logits.argmax(), 1.0)
        scaled = logits / self.temperature
        if self.top_k is not None and self.top_k < len(scaled):
            scaled = scaled.masked_fill(scaled < scaled.topk(self.top_k).values[-1], -torch.inf)
        p = scaled.softmax(-1)
        if self.top_p < 1:
            ordered, index = p.sort(descending=True, stable=True)
            # A token stays while those before it have not reached the sum, so the first one always does.
            dropped = ordered.cumsum(-1) - ordered >= self.top_p
            p = p.index_fill(0, index[dropped], 0.0)
        return p / p.sum()


@torch.inference_mode()
def generate(
    model: LanguageModel, prompt: Sequence[int], tokens: int, sampling: Sampling | None = None
) -> Iterator[int]:
    """Yield ``tokens`` new token ids after ``prompt``, one at a time.

    Keys and values stay in caches, so that a token costs one row of work. When the context is full the model goes on
    from the last half of it: ``context_length // 2`` tokens are read anew.

    Raises:
        ArgumentError: an empty prompt, or a token that the model does not have.
    """
    sampling = sampling or Sampling()
    if not prompt:
        raise ArgumentError("generation goes on from at least one token: the prompt is empty.")
    if not 0 <= min(prompt) <= max(prompt) < model.config.vocabulary:
        raise ArgumentError(f"tokens go from 0 to {model.config.vocabulary - 1}: got {list(prompt)}.")
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(sampling.seed)
    context = model.config.context_length
    seen, fresh = list(prompt[-context:]), list(prompt[-context:])
    caches = model.new_caches()
    for _ in range(checked_int("tokens", tokens, 0)):
        if caches[0].length + len(fresh) > context:
            seen = fresh = seen[-max(context // 2, 1) :]
            caches = model.new_caches()
        logits = model(torch.tensor([fresh], device=device), caches=caches)[0, -1].float().cpu()
        token = int(torch.multinomial(sampling.probabilities(logits), 1, generator=draw))
        fresh = [token]
        seen = [*seen, token]
        yield token

"""From token ids to batches. Which windows a step gets is a function of the seed and the step, so nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regard._errors import ArgumentError
from regard.lm.corpus import Text
from regard.lm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Corpus:
    """The tokens of a text, split into what is trained on and what is held out.

    Attributes:
        train: int64 ``(N,)``.
        held_out: int64 ``(M,)``, the end of the text.
        characters_per_token: of the held-out text.
    """

    train: Tensor
    held_out: Tensor
    characters_per_token: float

    @classmethod
    def of(cls, text: Text, tokenizer: Tokenizer, *, held_out: float, context: int) -> Corpus:
        """Split ``text`` at a character and turn both parts into tokens.

        Raises:
            ArgumentError: a part that is shorter than a context and one token to predict.
        """
        split = len(text.text) - round(len(text.text) * held_out)
        parts = text.text[:split], text.text[split:]
        train, kept = (torch.tensor(tokenizer.encode(part), dtype=torch.int64) for part in parts)
        for name, part in (("training", train), ("held-out", kept)):
            if len(part) < context + 1:
                share = held_out if name == "held-out" else 1 - held_out
                raise ArgumentError(
                    f"the {name} part of {text.source} ({share:.0%}) must have at least context_length + 1 = "
                    f"{context + 1} tokens: it has {len(part)}. Take more text or a shorter context."
                )
        return cls(train, kept, len(parts[1]) / len(kept))

    def batch(self, seed: int, step: int, sequences: int, context: int) -> tuple[Tensor, Tensor]:
        """The windows of step ``step``: ids and their targets, both ``(sequences, context)``."""
        draw = np.random.Generator(np.random.Philox(key=[seed, step]))
        starts = torch.from_numpy(draw.integers(0, len(self.train) - context, sequences))
        return _windows(self.train, starts, context)

    def held_out_windows(self, tokens: int, context: int) -> tuple[Tensor, Tensor]:
        """About ``tokens`` held-out tokens, spread evenly: ids and targets ``(n, context)``."""
        most = (len(self.held_out) - 1) // context
        count = max(min(tokens // context, most), 1)
        starts = torch.linspace(0, len(self.held_out) - 1 - context, count, dtype=torch.float64).long()
        return _windows(self.held_out, starts, context)


def _windows(tokens: Tensor, starts: Tensor, context: int) -> tuple[Tensor, Tensor]:
    index = starts[:, None] + torch.arange(context + 1)
    windows = tokens[index]
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

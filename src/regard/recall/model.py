"""Three models alike in everything but the layer that mixes tokens, which has as many parameters in each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError
from regard.masks import Causal
from regard.nn import MultiHeadAttention
from regard.recall.task import KEYS, VALUES, Questions

KINDS = ("attention", "GRU", "LSTM")
_GATES = {"GRU": 3, "LSTM": 4}


class Recaller(nn.Module):
    """Embeds items and questions, mixes them with one layer, and scores the values.

    Args:
        kind: one of `KINDS`.
        width: features of a token.
        context: the most tokens of a sequence.

    Raises:
        ArgumentError: an unknown kind.
    """

    def __init__(self, kind: str, width: int, context: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ArgumentError(f"the layers to compare are {', '.join(KINDS)}: got {kind!r}.")
        self.key = nn.Embedding(KEYS, width)
        self.value = nn.Embedding(VALUES, width)
        self.question = nn.Parameter(torch.randn(width))
        features = width if kind == "attention" else hidden_features(kind, width)
        self.mixer: nn.Module
        if kind == "attention":
            self.mixer = MultiHeadAttention(width, width, context, 0.0, num_heads=1, mask=Causal())
        else:
            layer = nn.GRU if kind == "GRU" else nn.LSTM
            self.mixer = layer(width, features, batch_first=True)
        self.head = nn.Linear(features, VALUES)

    def forward(self, given: Questions) -> Tensor:
        """Logits of the values, ``(B, m, VALUES)``."""
        items = self.key(given.keys) + self.value(given.values)
        tokens = torch.cat([items, self.key(given.asked) + self.question], 1)
        mixed = self.mixer(tokens)
        features = mixed[0] if isinstance(mixed, tuple) else mixed
        logits: Tensor = self.head(features[:, given.keys.shape[1] :])
        return logits


def mixer_size(model: Recaller) -> int:
    """Parameters of the layer that mixes tokens."""
    return sum(p.numel() for p in model.mixer.parameters())


def hidden_features(kind: str, width: int) -> int:
    """The state's size at which a recurrent layer has the most parameters that attention of this width has.

    Attention has four matrices ``width × width`` and a bias; a recurrent layer has, for each gate, matrices from the
    token and from its state, and two biases.
    """
    budget = 4 * width * width + width
    hidden = 1
    while _GATES[kind] * (hidden + 1) * (width + hidden + 1 + 2) <= budget:
        hidden += 1
    return hidden

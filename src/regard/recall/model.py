"""Three models alike in everything but the layer that mixes tokens, which has as many parameters in each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError
from regard.masks import Causal, Prefix, SlidingWindow
from regard.nn import MultiHeadAttention
from regard.recall.task import KEYS, VALUES, Questions

KINDS = ("attention", "GRU", "LSTM")
_GATES = {"GRU": 3, "LSTM": 4}


class Recaller(nn.Module):
    """Embeds items and questions, mixes them with one layer, and scores the values.

    A question is the token after the items, whichever is asked; several are answered as if each came alone.

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
            remember(self.mixer)
        self.head = nn.Linear(features, VALUES)

    def forward(self, given: Questions) -> Tensor:
        """Logits of the values, ``(B, m, VALUES)``."""
        items = self.key(given.keys) + self.value(given.values)
        questions = self.key(given.asked) + self.question
        logits: Tensor = self.head(self._mixed(items, questions))
        return logits

    def _mixed(self, items: Tensor, questions: Tensor) -> Tensor:
        """What the layer makes of each of ``questions (B, m, width)`` after ``items (B, n, width)``."""
        if isinstance(self.mixer, MultiHeadAttention):
            n = items.shape[1]
            each_alone = Prefix(n) | SlidingWindow(0)
            mixed: Tensor = self.mixer(torch.cat([items, questions], 1), mask=each_alone)[:, n:]
            return mixed
        batch, m, width = questions.shape
        _, state = self.mixer(items)
        if isinstance(state, tuple):
            state = tuple(each.repeat_interleave(m, 1) for each in state)
        else:
            state = state.repeat_interleave(m, 1)
        mixed, _ = self.mixer(questions.reshape(batch * m, 1, width), state)
        return mixed.reshape(batch, m, -1)


def remember(layer: nn.Module) -> None:
    """Begin a recurrent layer so that it forgets little.

    The products with the state are orthogonal (Saxe et al. 2014), and the gate that keeps the state has a bias of 1
    (Jozefowicz et al. 2015).
    """
    assert isinstance(layer, nn.RNNBase)
    hidden = layer.hidden_size
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("bias"):
                parameter.zero_()
            if name == "bias_ih_l0":
                parameter[hidden : 2 * hidden] = 1.0
            for gate in parameter.split(hidden) if name.startswith("weight") else ():
                nn.init.orthogonal_(gate) if "_hh" in name else nn.init.xavier_uniform_(gate)


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

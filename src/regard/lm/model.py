"""A causal language model, small enough to read in one sitting: a GPT on `regard.nn.MultiHeadAttention`.

Read it from the bottom: `LanguageModel` embeds token ids, sends them through `Block`s, and asks the embedding again
which token comes next. All sizes are in `ModelConfig`, and `PRESETS` names some.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard.cache import Cache, FullCache
from regard.masks import Causal, Mask, SlidingWindow
from regard.masks.base import checked_int
from regard.nn import MultiHeadAttention, RotaryEmbedding

Positions = Literal["rotary", "learned"]


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a `LanguageModel`.

    Attributes:
        vocabulary: how many different tokens there are.
        context_length: the most tokens that the model sees at once.
        width: features of a token between the layers.
        layers: blocks, one after the other.
        heads: attention heads of a block; ``width % heads == 0``.
        kv_heads: key/value heads of a block, a divisor of ``heads``; None: as many.
        positions: how the model knows the order of its tokens: ``"rotary"`` turns queries and keys (Su et al. 2021),
            ``"learned"`` adds a trained vector a position (GPT-2).
        window: other keys that a query sees before its own; None: all of them.
        dropout: probability of dropping a weight, and a feature of what a block adds, in training.
        backend: as in `regard.attention`.

    Raises:
        KindError: a size that is no int.
        ArgumentError: a size below 1, an unknown kind of positions.
        ShapeError: heads that do not divide.
    """

    vocabulary: int
    context_length: int
    width: int
    layers: int
    heads: int
    kv_heads: int | None = None
    positions: Positions = "rotary"
    window: int | None = None
    dropout: float = 0.0
    backend: str | None = None

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context_length", "width", "layers", "heads"):
            checked_int(name, getattr(self, name), 1)
        if self.width % self.heads or (self.positions == "rotary" and self.width // self.heads % 2):
            raise ShapeError(
                f"the width is split evenly over the heads, and rotary positions turn pairs of a head's features: got "
                f"width={self.width} and heads={self.heads}. Choose a width that {2 * self.heads} divides."
            )
        if self.positions not in ("rotary", "learned"):
            raise ArgumentError(f"positions must be 'rotary' or 'learned': got {describe(self.positions)}.")

    @property
    def mask(self) -> Mask:
        """Which tokens a token may look at: its past, or a window of it."""
        return Causal() if self.window is None else SlidingWindow(self.window)

    def replace(self, **changes: object) -> Self:
        """This configuration with other values."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


PRESETS: dict[str, ModelConfig] = {
    "toy": ModelConfig(vocabulary=256, context_length=64, width=64, layers=2, heads=4),
    "small": ModelConfig(vocabulary=256, context_length=128, width=128, layers=4, heads=4),
    "medium": ModelConfig(vocabulary=2048, context_length=256, width=384, layers=6, heads=6, dropout=0.1),
    "gpt2-small": ModelConfig(
        vocabulary=50257, context_length=1024, width=768, layers=12, heads=12, positions="learned", dropout=0.1
    ),
}
"""Named sizes; a tokenizer's vocabulary replaces theirs. ``gpt2-small`` is that of Radford et al. 2019."""


def preset(name: str, **changes: object) -> ModelConfig:
    """The configuration called ``name``, with other values where they are given.

    Raises:
        ArgumentError: no such name.

    >>> preset("toy", vocabulary=65).width
    64
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ArgumentError(f"a preset is one of {', '.join(PRESETS)}: got {name!r}{meant}.")
    return PRESETS[name].replace(**changes)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, applied to each token alone; four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, L, width)`` to the same shape."""
        out: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """One layer: tokens look at one another, then each is worked on alone.

    Both steps *add* to the stream of features and read it through a norm ("pre-norm", Xiong et al. 2020), so a gradient
    reaches every layer through a plain sum.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, head_dim = config.width, config.width // config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(
            width,
            width,
            config.context_length,
            config.dropout,
            config.heads,
            num_kv_heads=config.kv_heads,
            mask=config.mask,
            rope=RotaryEmbedding(head_dim) if config.positions == "rotary" else None,
            fused=True,
            backend=config.backend,
        )
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: Cache | None = None, mask: Mask | None = None) -> Tensor:
        """``(B, L, width)`` to the same shape."""
        x = x + self.dropout(self.attention(self.attention_norm(x), cache=cache, mask=mask))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x


class LanguageModel(nn.Module):
    """Scores of the next token at every position, from the tokens up to there.

    ``logits = norm(block_n(… block_1(embedding[ids]))) · embeddingᵀ``: one matrix embeds the tokens and scores them
    ("tied head", Press and Wolf 2017).

    Args:
        config: the sizes.

    Attributes:
        embedding: a vector for each token.
        positions: a vector for each position, or None with rotary positions.
        blocks: the layers.
        norm: the last norm.

    Shape:
        ids int64 ``(B, L)`` to logits ``(B, L, vocabulary)``, ``L <= context_length``.

    >>> model = LanguageModel(preset("toy"))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 256])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.context_length, config.width) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small random weights; smaller still where a layer adds to the stream, as 2 · layers sums pile up there."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            adds = name.endswith(("out_proj.weight", "down.weight"))
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.layers) if adds else 0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor, *, caches: Sequence[Cache] | None = None, mask: Mask | None = None) -> Tensor:
        """Logits ``(B, L, vocabulary)``.

        Args:
            ids: int64 ``(B, L)``.
            caches: one a block, from `new_caches`: what is in them comes before ``ids``.
            mask: a further mask, such as ``Document(ids)`` for texts packed into one row.

        Raises:
            KindError: ids that are no int64 tensor.
            ShapeError: not ``(B, L)``; with the past, more than ``context_length`` tokens.
        """
        if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
            raise KindError(f"ids are an int64 tensor (B, L): got {describe(ids)}.")
        past = caches[0].length if caches else 0
        if ids.ndim != 2 or past + ids.shape[1] > self.config.context_length:
            raise ShapeError(
                f"ids are (B, L), and the model was made for context_length={self.config.context_length} tokens: got "
                f"{tuple(ids.shape)}" + (f" after {past} tokens in the caches." if past else ".")
            )
        x = self.embedding(ids)
        if self.positions is not None:
            x = x + self.positions(torch.arange(past, past + ids.shape[1], device=ids.device))
        x = self.dropout(x)
        for n, block in enumerate(self.blocks):
            x = block(x, cache=None if caches is None else caches[n], mask=mask)
        return F.linear(self.norm(x), self.embedding.weight)

    def loss(self, ids: Tensor, targets: Tensor, *, mask: Mask | None = None) -> Tensor:
        """Mean cross-entropy, in nats a token, of ``targets (B, L)`` under the logits of ``ids (B, L)``."""
        logits = self(ids, mask=mask)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def new_caches(self) -> list[Cache]:
        """One empty cache a block, with room for a whole context."""
        return [FullCache(self.config.context_length) for _ in self.blocks]

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

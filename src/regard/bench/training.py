"""A whole training step of one language model: our attention module, and what one writes with torch's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard.bench.cases import Attend, Case
from regard.lm import LanguageModel, ModelConfig, Training
from regard.lm.optimizer import make_optimizer
from regard.masks import Causal, Document, Mask, SlidingWindow
from regard.nn import MultiHeadAttention

_WIDTH, _LAYERS, _HEADS, _VOCABULARY, _TOKENS = 384, 4, 6, 2048, 4096
_MODEL = f"a language model of {_LAYERS} layers, {_WIDTH} wide, float32"
_NAMES = ("query", "key", "value")
_SDPA = "scaled_dot_product_attention"


class SdpaAttention(nn.Module):
    """The module that one writes around `torch.nn.functional.scaled_dot_product_attention`, with another's weights.

    Queries, keys and values come out of one product, and the turns of the rotary positions are made once.

    Args:
        like: gives the weights.
        length: of the sequences.
        allowed: which pairs are visible, ``(L, L)``; None: the past.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, like: MultiHeadAttention, length: int, allowed: Tensor | None) -> None:
        super().__init__()
        assert like.rope is not None
        self.heads, self.allowed = like.num_heads, allowed
        self.qkv = nn.Linear(like.d_in, 3 * like.d_out, bias=False)
        self.out_proj = nn.Linear(like.d_out, like.d_out)
        with torch.no_grad():
            self.qkv.weight.copy_(torch.cat([like.state_dict()[f"W_{name}.weight"] for name in _NAMES]))
        self.out_proj.load_state_dict(like.out_proj.state_dict())
        angle = torch.arange(length).double()[:, None] * like.rope.frequencies(torch.arange(length))
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x: Tensor, *, cache: None = None, mask: Mask | None = None) -> Tensor:
        """``(B, L, width)`` to the same shape; ``cache`` and ``mask`` are there for the signature."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(
            self._turned(q), self._turned(k), v, attn_mask=self.allowed, is_causal=self.allowed is None
        )
        mixed: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return mixed

    def _turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat([a * self.cos - b * self.sin, b * self.cos + a * self.sin], -1)


def steps(batch: int, length: int, mask: Mask | None) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Our step and the other way's: forward, loss, backward, clipping and AdamW on the same weights and tokens.

    What a step returns is the gradient of the first block's first norm, which all of its attention reaches.
    """
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(_VOCABULARY, (batch, length + 1), generator=draw)
    config = ModelConfig(_VOCABULARY, length, _WIDTH, _LAYERS, _HEADS, backend="native")

    def model() -> LanguageModel:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return LanguageModel(config)

    def way(model: LanguageModel, mask: Mask | None) -> Callable[[], Tensor]:
        optimizer = make_optimizer(model, Training())

        def step() -> Tensor:
            with torch.enable_grad():
                model.loss(ids[:, :-1], ids[:, 1:], mask=mask).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            grad = next(p.grad for name, p in model.named_parameters() if name.endswith("attention_norm.weight"))
            assert grad is not None
            seen = grad.clone()
            optimizer.zero_grad()
            return seen

        return step

    theirs = model()
    allowed = None if mask is None else (Causal() & mask).dense(length, length)[0, 0]
    for block in theirs.blocks:
        assert isinstance(block.attention, MultiHeadAttention)
        block.attention = SdpaAttention(block.attention, length, allowed)
    return way(model(), mask), way(theirs, None)


def _case(name: str, what: str, length: int, faster: float, mask: Mask | None = None) -> Case:
    batch = _TOKENS // length
    shape = (batch, _HEADS, length, _WIDTH // _HEADS)

    def make(device: torch.device) -> tuple[Attend, Attend]:
        ours, theirs = steps(batch, length, mask)
        return (lambda q, k, v: ours()), (lambda q, k, v: theirs())

    title = f"{_MODEL}: a training step of {batch} × {length:,} tokens{what}"
    against = f"the same with {_SDPA}" + ("" if mask is None else " and a dense mask")
    return Case(name, title, against, shape, "native", make, backward=False, target=1 / faster, tokens=_TOKENS)


TRAINING: Sequence[Case] = (
    _case("train-256", "", 256, 1.0),
    _case("train-1024", "", 1024, 1.05),
    _case("train-4096", "", 4096, 1.13),
    _case("train-4096-window", ", each sees 256", 4096, 1.13, SlidingWindow.of_width(256)),
    _case("train-4096-packed", ", 8 packed documents", 4096, 1.13, Document.from_lengths([512] * 8)),
)

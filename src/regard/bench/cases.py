"""What is measured: each case is our way and another way of one computation, with the claim it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from regard._attention import attention
from regard.masks import Causal, Document, Mask, SlidingWindow

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: what `regard bench NAME` takes.
        title: what is computed, with its sizes.
        against: the other way, in words.
        shape: ``(B, H, L, D)``.
        make: from the device to our way and the other way.
        backward: whether the time includes the backward pass.
        target: the greatest ratio ours / theirs that the project promises.
    """

    name: str
    title: str
    against: str
    shape: tuple[int, int, int, int]
    make: Callable[[torch.device], tuple[Attend, Attend]]
    backward: bool
    target: float


def eager(mask: Mask) -> Callable[[torch.device], Attend]:
    """The dense formula as one writes it by hand: scores, masked fill, softmax, product."""

    def make(device: torch.device) -> Attend:
        tables: dict[int, Tensor] = {}

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            length = q.shape[2]
            if length not in tables:
                tables[length] = ~mask.to(device).dense(length, length)
            s = (q @ k.mT) / math.sqrt(q.shape[-1])
            return s.masked_fill(tables[length], -math.inf).softmax(-1) @ v

        return attend

    return make


def fused(mask: Mask) -> Callable[[torch.device], Attend]:
    """`torch.nn.functional.scaled_dot_product_attention` given the mask as a dense bool tensor."""

    def make(device: torch.device) -> Attend:
        tables: dict[int, Tensor] = {}

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            length = q.shape[2]
            if length not in tables:
                tables[length] = mask.to(device).dense(length, length)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=tables[length])

        return attend

    return make


def ours(mask: Mask, backend: str) -> Callable[[torch.device], Attend]:
    """`regard.attention` on a named backend."""

    def make(device: torch.device) -> Attend:
        here = mask.to(device)
        return lambda q, k, v: attention(q, k, v, mask=here, backend=backend)

    return make


def _both(
    mine: Callable[[torch.device], Attend], other: Callable[[torch.device], Attend]
) -> Callable[[torch.device], tuple[Attend, Attend]]:
    return lambda device: (mine(device), other(device))


_WINDOW = SlidingWindow(256)
_PACKED = Causal() & Document.from_lengths([1024] * 16)

CASES: Sequence[Case] = (
    Case(
        "causal",
        "blockwise, causal, forward",
        "the dense eager formula",
        (1, 8, 4096, 64),
        _both(ours(Causal(), "blockwise"), eager(Causal())),
        backward=False,
        target=0.30,
    ),
    Case(
        "causal-backward",
        "blockwise, causal, forward + backward",
        "the dense eager formula",
        (1, 8, 4096, 64),
        _both(ours(Causal(), "blockwise"), eager(Causal())),
        backward=True,
        target=0.35,
    ),
    Case(
        "window",
        "blockwise, window of 256 other keys, forward",
        "torch's fused kernel with the dense mask",
        (1, 4, 16384, 64),
        _both(ours(_WINDOW, "blockwise"), fused(_WINDOW)),
        backward=False,
        target=1 / 20,
    ),
    Case(
        "documents",
        "blockwise, 16 causal documents of 1,024 tokens, forward",
        "torch's fused kernel with the dense mask",
        (1, 4, 16384, 64),
        _both(ours(_PACKED, "blockwise"), fused(_PACKED)),
        backward=False,
        target=1.0,
    ),
)

"""What is measured: each case is our way and another way of one computation, with the claim it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from regard._attention import attention
from regard._dispatch import backend
from regard.masks import Causal, Document, Everything, Mask, SlidingWindow

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: what `regard bench NAME` takes.
        title: what is computed, with its sizes.
        against: the other way, in words.
        shape: ``(B, H, L, D)``.
        backend: the backend of our way.
        make: from the device to our way and the other way.
        backward: whether the time includes the backward pass.
        target: the greatest ratio ours / theirs that the project promises.
    """

    name: str
    title: str
    against: str
    shape: tuple[int, int, int, int]
    backend: str
    make: Callable[[torch.device], tuple[Attend, Attend]]
    backward: bool
    target: float

    @property
    def missing(self) -> str | None:
        """Why the backend of our way is not usable here, or None if it is."""
        return backend(self.backend).missing()


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


def fused_plain(*, causal: bool) -> Callable[[torch.device], Attend]:
    """`torch.nn.functional.scaled_dot_product_attention` as it is fastest, without a mask tensor."""
    return lambda device: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)


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


def ours(mask: Mask, name: str) -> Callable[[torch.device], Attend]:
    """`regard.attention` on a named backend."""

    def make(device: torch.device) -> Attend:
        here = mask.to(device)
        return lambda q, k, v: attention(q, k, v, mask=here, backend=name)

    return make


def _both(
    mine: Callable[[torch.device], Attend], other: Callable[[torch.device], Attend]
) -> Callable[[torch.device], tuple[Attend, Attend]]:
    return lambda device: (mine(device), other(device))


_WINDOW = SlidingWindow(256)
_NARROW = SlidingWindow(127)
_PACKED = Causal() & Document.from_lengths([1024] * 16)
_LONG = (1, 4, 16384, 64)
_HEADS = (1, 8, 4096, 64)
_EAGER = "the dense eager formula"
_FUSED = "torch's fused kernel"
_MASKED = "torch's fused kernel with the dense mask"


def _case(
    name: str,
    what: str,
    against: str,
    shape: tuple[int, int, int, int],
    mine: str,
    mask: Mask,
    other: Callable[[torch.device], Attend],
    target: float,
) -> Case:
    title = f"{mine}, {what}, forward" + (" + backward" if name.endswith("-backward") else "")
    ways = _both(ours(mask, mine), other)
    return Case(name, title, against, shape, mine, ways, name.endswith("-backward"), target)


CASES: Sequence[Case] = (
    _case("causal", "causal", _EAGER, _HEADS, "blockwise", Causal(), eager(Causal()), 0.30),
    _case("causal-backward", "causal", _EAGER, _HEADS, "blockwise", Causal(), eager(Causal()), 0.35),
    _case("window", "window of 256 other keys", _MASKED, _LONG, "blockwise", _WINDOW, fused(_WINDOW), 1 / 20),
    _case("documents", "16 causal documents of 1,024", _MASKED, _LONG, "blockwise", _PACKED, fused(_PACKED), 1.0),
    _case("native-full", "full", _FUSED, _HEADS, "native", Everything(), fused_plain(causal=False), 1 / 1.2),
    _case("native-causal", "causal", _FUSED, _HEADS, "native", Causal(), fused_plain(causal=True), 1 / 1.3),
    _case("native-causal-backward", "causal", _FUSED, _HEADS, "native", Causal(), fused_plain(causal=True), 1 / 1.3),
    _case("native-window", "window of 128 keys", _MASKED, _LONG, "native", _NARROW, fused(_NARROW), 1 / 100),
    _case(
        "native-documents", "16 causal documents of 1,024", _MASKED, _LONG, "native", _PACKED, fused(_PACKED), 1 / 35
    ),
)

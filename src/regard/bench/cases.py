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
from regard.backends.native import library
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
        backend: the backend of our way.
        make: from the device to our way and the other way.
        backward: whether the time includes the backward pass.
        target: the greatest ratio ours / theirs that the project promises.
        dtype: of q, k and v.
        kv_heads: key/value heads, where they are fewer than H.
        q_len: queries, where they are fewer than L.
        visible: query-key pairs of one head that the mask shows, for the share of the machine's peak.
        rival: what ``--against`` calls the other way; "own" is another call of ours.
        quick: whether ``--quick`` runs it.
        comparable: whether both ways give the same numbers; dropout does not.
        repeat: calls a timing, for calls too short for the clock.
        slack: seconds by which ours may be longer, a promise instead of the ratio.
        tokens: of a training step, for its tokens a second.
        pairs: visible pairs of our way and of the other, where the ratio is that of the times a pair.
        variant: the kernels' instruction set that our way is forced to.
        graph: whether gradients are wanted, and not computed.
        learned: gives tensors besides q, k and v of which the backward pass computes the gradient.
    """

    name: str
    title: str
    against: str
    shape: tuple[int, int, int, int]
    backend: str
    make: Callable[[torch.device], tuple[Attend, Attend]]
    backward: bool
    target: float
    dtype: torch.dtype = torch.float32
    kv_heads: int | None = None
    q_len: int | None = None
    visible: int | None = None
    rival: str = "torch"
    quick: bool = False
    comparable: bool = True
    repeat: int = 1
    slack: float | None = None
    tokens: int | None = None
    pairs: tuple[int, int] = (1, 1)
    variant: str | None = None
    graph: bool = False
    learned: Callable[[], tuple[Tensor, ...]] = tuple

    @property
    def operands(self) -> tuple[tuple[int, int, int, int], ...]:
        """The shapes of q, k and v."""
        batch, heads, length, width = self.shape
        keys = (batch, self.kv_heads or heads, length, width)
        return (batch, heads, self.q_len or length, width), keys, keys

    @property
    def flops(self) -> int | None:
        """Operations of the visible pairs: 4 D a pair forward, 10 D backward."""
        if self.visible is None:
            return None
        batch, heads, _, width = self.shape
        return (14 if self.backward else 4) * width * batch * heads * self.visible

    @property
    def bytes_read(self) -> int:
        """Bytes of the keys and values, which a decoding step reads once."""
        return 2 * math.prod(self.operands[1]) * self.dtype.itemsize

    @property
    def missing(self) -> str | None:
        """Why the backend of our way is not usable here, or None if it is."""
        absent = backend(self.backend).missing()
        if absent is None and self.variant is not None and self.variant not in library.supported():
            return f"the {self.variant} kernels cannot run here"
        return absent


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
_PACKED = Causal() & Document.from_lengths([1024] * 16)
_LONG = (1, 4, 16384, 64)
_HEADS = (1, 8, 4096, 64)
_EAGER = "the dense eager formula"
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
    backward = name.endswith("-backward")
    rival = "eager" if against == _EAGER else "torch"
    return Case(name, title, against, shape, mine, ways, backward, target, rival=rival)


CASES: Sequence[Case] = (
    _case("causal", "causal", _EAGER, _HEADS, "blockwise", Causal(), eager(Causal()), 0.30),
    _case("causal-backward", "causal", _EAGER, _HEADS, "blockwise", Causal(), eager(Causal()), 0.35),
    _case("window", "window of 256 other keys", _MASKED, _LONG, "blockwise", _WINDOW, fused(_WINDOW), 1 / 20),
    _case("documents", "16 causal documents of 1,024", _MASKED, _LONG, "blockwise", _PACKED, fused(_PACKED), 1.0),
)

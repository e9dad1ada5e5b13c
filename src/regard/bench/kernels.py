"""The native kernels: what they promise, case by case, against torch, the eager formula and FlexAttention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regard._attention import attention
from regard.bench.cases import Attend, Case, fused, fused_plain
from regard.masks import Causal, Document, Everything, Mask, SlidingWindow
from regard.scores import Alibi, Bias, ScoreModification, Softcap

_FUSED = "torch's fused kernel"
_MASKED = "torch's fused kernel with the dense mask"
_HEADS = (1, 8, 4096, 64)
_NARROW = SlidingWindow(127)
_PACKED = Causal() & Document.from_lengths([1024] * 16)
_BF16 = torch.bfloat16
Make = Callable[[torch.device], Attend]


def _native(mask: Mask, **arguments: Any) -> Make:
    def make(device: torch.device) -> Attend:
        here = mask.to(device)
        return lambda q, k, v: attention(q, k, v, mask=here, backend="native", **arguments)

    return make


def _case(name: str, title: str, mask: Mask, theirs: Make, speedup: float, shape: tuple[int, ...], **more: Any) -> Case:
    batch, heads, length, width = shape
    dtype = "bfloat16" if more.get("dtype") is _BF16 else "float32"
    backward = name.endswith("-backward")
    mine: Make = more.pop("mine", _native(mask))
    more.setdefault("visible", _visible(mask, length) if "q_len" not in more else length)
    return Case(
        name,
        f"native, {dtype}, {title}, forward" + (" + backward" if backward else ""),
        more.pop("against", _FUSED),
        (batch, heads, length, width),
        "native",
        lambda device: (mine(device), theirs(device)),
        backward,
        1 / speedup,
        **more,
    )


def _visible(mask: Mask, length: int) -> int:
    rows = mask.intervals(mask.frame(length, length))
    assert rows is not None
    return int((rows.stop - rows.start).sum())


def _plain(name: str, *, causal: bool, speedup: float, shape: tuple[int, ...], **more: Any) -> Case:
    mask = Causal() if causal else Everything()
    return _case(name, "causal" if causal else "full", mask, fused_plain(causal=causal), speedup, shape, **more)


def _dropped(device: torch.device) -> Attend:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)


def _changed(change: Callable[[Tensor], Tensor], sinks: Tensor | None = None) -> Make:
    """The eager causal formula with changed scores, and with sinks as one more column."""

    def make(device: torch.device) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            s = change((q @ k.mT) / math.sqrt(q.shape[-1]))
            hidden = torch.ones(s.shape[-2:], dtype=torch.bool, device=device).triu(1)
            s = s.masked_fill(hidden, -math.inf)
            if sinks is None:
                return s.softmax(-1) @ v
            column = sinks[:, None, None].expand(*s.shape[:3], 1)
            return torch.cat([s, column], -1).softmax(-1)[..., :-1] @ v

        return attend

    return make


def _feature(
    name: str, mods: Callable[[int], list[ScoreModification]], theirs: Make, sinks: Tensor | None = None
) -> Case:
    def mine(device: torch.device) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            made = mods(q.shape[2])
            return attention(q, k, v, mask=Causal(), score_mod=made, sinks=sinks, backend="native")

        return attend

    title, against = f"causal, {name.split('-')[1]}", "the dense eager formula"
    return _case(name, title, Causal(), theirs, 7, (1, 8, 2048, 64), mine=mine, rival="eager", against=against)


@cache
def _learned() -> Tensor:
    return torch.randn(8, 2048, 2048, generator=torch.Generator().manual_seed(0)) / 4


def _distance(s: Tensor) -> Tensor:
    at = torch.arange(s.shape[-1], dtype=s.dtype)
    return Alibi.for_heads(s.shape[1]).slopes[:, None, None] * (at[:, None] - at).abs()


def _flex(device: torch.device) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    blocks: dict[int, Any] = {}

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[2]
        if length not in blocks:
            blocks[length] = create_block_mask(
                lambda b, h, i, j: i >= j, None, None, length, length, device=str(device)
            )
        out = compiled(q, k, v, block_mask=blocks[length])
        assert isinstance(out, Tensor)
        return out

    return attend


def _step(name: str, speedup: float, dtype: torch.dtype) -> Case:
    def theirs(device: torch.device) -> Attend:
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    shape = (1, 32, 16384, 128)
    title = "one decoding step, 32/8 heads, 16,384 keys"
    return _case(name, title, Causal(), theirs, speedup, shape, dtype=dtype, kv_heads=8, q_len=1)


_logits = torch.linspace(-1, 1, 8)

KERNELS: Sequence[Case] = (
    _plain("native-full", causal=False, speedup=1.2, shape=_HEADS, quick=True),
    _plain("native-full-128", causal=False, speedup=1.12, shape=(1, 8, 4096, 128)),
    _plain("native-causal", causal=True, speedup=1.3, shape=_HEADS, quick=True),
    _plain("native-causal-1024", causal=True, speedup=1.4, shape=(1, 8, 1024, 64), quick=True),
    _plain("native-bf16-full", causal=False, speedup=2.2, shape=_HEADS, dtype=_BF16),
    _plain("native-bf16-causal", causal=True, speedup=2.35, shape=_HEADS, dtype=_BF16),
    _plain("native-bf16-full-128", causal=False, speedup=2.2, shape=(1, 8, 4096, 128), dtype=_BF16),
    _plain("native-bf16-causal-128", causal=True, speedup=2.35, shape=(1, 8, 4096, 128), dtype=_BF16),
    _plain("native-causal-backward", causal=True, speedup=1.3, shape=_HEADS),
    _plain("native-bf16-causal-backward", causal=True, speedup=1.7, shape=_HEADS, dtype=_BF16),
    _plain("native-short-128", causal=False, speedup=1.5, shape=(8, 12, 128, 64), quick=True, repeat=10),
    _plain("native-short-64", causal=False, speedup=1.8, shape=(32, 12, 64, 32), quick=True, repeat=10),
    _plain("native-short-one", causal=False, speedup=1, shape=(1, 8, 64, 64), quick=True, repeat=200),
    _case("native-window", "window of 128 keys", _NARROW, fused(_NARROW), 100, (1, 4, 16384, 64), against=_MASKED),
    _case("native-documents", "16 documents", _PACKED, fused(_PACKED), 35, (1, 4, 16384, 64), against=_MASKED),
    _case("native-window-backward", "window of 128 keys", _NARROW, fused(_NARROW), 22, _HEADS, against=_MASKED),
    _case(
        "native-dropout-backward",
        "causal, dropout 0.1",
        Causal(),
        _dropped,
        8,
        (1, 8, 2048, 64),
        mine=_native(Causal(), dropout_p=0.1),
        comparable=False,
    ),
    _feature("native-softcap-backward", lambda n: [Softcap(20.0)], _changed(lambda s: 20 * torch.tanh(s / 20))),
    _feature("native-alibi-backward", lambda n: [Alibi.for_heads(8)], _changed(lambda s: s - _distance(s))),
    _feature(
        "native-bias-backward",
        lambda n: [Bias(_learned()[:, :n, :n])],
        _changed(lambda s: s + _learned()[:, : s.shape[2], : s.shape[3]]),
    ),
    _feature("native-sinks-backward", lambda n: [], _changed(lambda s: s, _logits), _logits),
    _step("native-step", 7, torch.float32),
    _step("native-bf16-step", 20, _BF16),
    _plain("native-overhead", causal=False, speedup=1, shape=(1, 1, 6, 3), quick=True, repeat=2000, slack=10e-6),
    _case(
        "native-flex",
        "causal",
        Causal(),
        _flex,
        1,
        _HEADS,
        rival="flex",
        against="FlexAttention, compiled",
    ),
)

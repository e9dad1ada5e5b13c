"""The native kernels: what they promise against torch's fused kernel, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from regard.bench.cases import Attend, Case, fused, fused_plain
from regard.bench.native import BF16, MASKED, PLAIN, native, native_case, visible
from regard.masks import Causal, Document, Everything, Mask, SlidingWindow

_HEADS = (1, 8, 4096, 64)
_LONG = (1, 4, 16384, 64)
_TINY = (1, 1, 6, 3)
_NARROW = SlidingWindow(127)
_PACKED = Causal() & Document.from_lengths([1024] * 16)


def _plain(name: str, *, causal: bool, speedup: float, shape: tuple[int, ...], **more: Any) -> Case:
    mask, title = (Causal() if causal else Everything()), "causal" if causal else "full"
    title += more.pop("note", "")
    return native_case(name, title, mask, fused_plain(causal=causal), 1 / speedup, shape, **more)


def _masked(name: str, title: str, mask: Mask, speedup: float, shape: tuple[int, ...]) -> Case:
    return native_case(name, title, mask, fused(mask), 1 / speedup, shape, against=MASKED)


def _per_pair(name: str, title: str, mask: Mask) -> Case:
    """Our time a visible pair against that of our own plain causal attention of the same length."""
    shape = (1, 2, *_LONG[2:])
    length = shape[2]
    return native_case(
        name,
        f"{title}, time a visible pair",
        mask,
        native(Causal()),
        1.5,
        shape,
        against=PLAIN,
        rival="own",
        comparable=False,
        pairs=(visible(mask, length), visible(Causal(), length)),
    )


def _dropped(device: torch.device) -> Attend:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)


def _step(name: str, speedup: float, dtype: torch.dtype) -> Case:
    def theirs(device: torch.device) -> Attend:
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    title = "one decoding step, 32/8 heads, 16,384 keys"
    shape = (1, 32, 16384, 128)
    return native_case(name, title, Causal(), theirs, 1 / speedup, shape, dtype=dtype, kv_heads=8, q_len=1, repeat=5)


def _call(name: str, note: str, slack: float, **more: Any) -> Case:
    """What a call costs beside its arithmetic."""
    return _plain(name, causal=False, speedup=1, shape=(1, 1, 6, 3), repeat=500, slack=slack, note=note, **more)


KERNELS: Sequence[Case] = (
    _plain("native-full", causal=False, speedup=1.2, shape=_HEADS, quick=True),
    _plain("native-full-128", causal=False, speedup=1.12, shape=(1, 8, 4096, 128)),
    _plain("native-causal", causal=True, speedup=1.3, shape=_HEADS, quick=True),
    _plain("native-causal-1024", causal=True, speedup=1.4, shape=(1, 8, 1024, 64), quick=True),
    _plain("native-avx2", causal=False, speedup=1.1, shape=_HEADS, variant="avx2", note=", the AVX2 kernels"),
    _plain("native-avx2-causal", causal=True, speedup=1.1, shape=_HEADS, variant="avx2", note=", the AVX2 kernels"),
    _plain("native-bf16-full", causal=False, speedup=2.2, shape=_HEADS, dtype=BF16),
    _plain("native-bf16-causal", causal=True, speedup=2.35, shape=_HEADS, dtype=BF16),
    _plain("native-bf16-full-128", causal=False, speedup=2.2, shape=(1, 8, 4096, 128), dtype=BF16),
    _plain("native-bf16-causal-128", causal=True, speedup=2.35, shape=(1, 8, 4096, 128), dtype=BF16),
    _plain("native-causal-backward", causal=True, speedup=1.3, shape=_HEADS),
    _plain("native-bf16-causal-backward", causal=True, speedup=1.7, shape=_HEADS, dtype=BF16),
    _plain("native-short-128", causal=False, speedup=1.5, shape=(8, 12, 128, 64), quick=True, repeat=10),
    _plain("native-short-64", causal=False, speedup=1.8, shape=(32, 12, 64, 32), quick=True, repeat=10),
    _plain("native-short-one", causal=False, speedup=1, shape=(1, 8, 64, 64), quick=True, repeat=200),
    _masked("native-window", "window of 128 keys", _NARROW, 100, _LONG),
    _per_pair("native-window-pairs", "window of 128 keys", _NARROW),
    _masked("native-documents", "16 documents of 1,024", _PACKED, 35, _LONG),
    _per_pair("native-documents-pairs", "16 documents of 1,024", _PACKED),
    _masked("native-window-backward", "window of 128 keys", _NARROW, 22, _HEADS),
    native_case(
        "native-dropout-backward",
        "causal, dropout 0.1",
        Causal(),
        _dropped,
        1 / 8,
        _HEADS,
        mine=native(Causal(), dropout_p=0.1),
        comparable=False,
    ),
    _step("native-step", 7, torch.float32),
    _step("native-bf16-step", 20, BF16),
    _call("native-overhead", "", 10e-6, quick=True),
    _call("native-overhead-graph", ", gradients wanted and not computed", 15e-6, graph=True, quick=True),
    _call("native-overhead-backward", "", 15e-6),
)

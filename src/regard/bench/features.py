"""Score changes, biases and sinks, forward and backward: against the eager formula, and against plain attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from regard._attention import attention
from regard.bench.cases import Attend, Case
from regard.bench.native import PLAIN, Make, native, native_case
from regard.masks import Causal
from regard.scores import Alibi, Bias, RelativeBias, ScoreModification, Softcap

_SHAPE = (1, 8, 2048, 64)
_HEADS, _LENGTH = _SHAPE[1:3]
_EAGER = "the dense eager formula"
Changes = Callable[[int], list[ScoreModification]]


def _eager(change: Callable[[Tensor], Tensor], sinks: Callable[[], Tensor] | None = None) -> Make:
    """The causal formula with changed scores, and with sinks as one more column."""

    def make(device: torch.device) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            s = change((q @ k.mT) / math.sqrt(q.shape[-1]))
            hidden = torch.ones(s.shape[-2:], dtype=torch.bool, device=device).triu(1)
            s = s.masked_fill(hidden, -math.inf)
            if sinks is None:
                return s.softmax(-1) @ v
            column = sinks()[:, None, None].expand(*s.shape[:3], 1)
            return torch.cat([s, column], -1).softmax(-1)[..., :-1] @ v

        return attend

    return make


def _feature(name: str, title: str, changes: Changes, eager: Make, **more: Any) -> tuple[Case, Case]:
    sinks: Callable[[], Tensor] | None = more.pop("sinks", None)

    def mine(device: torch.device) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            made = changes(q.shape[2])
            return attention(
                q, k, v, mask=Causal(), score_mod=made, sinks=None if sinks is None else sinks(), backend="native"
            )

        return attend

    def case(name: str, theirs: Make, target: float, **other: Any) -> Case:
        return native_case(name, f"causal, {title}", Causal(), theirs, target, _SHAPE, mine=mine, **other, **more)

    return (
        case(f"native-{name}-backward", eager, 1 / 7, rival="eager", against=_EAGER),
        case(f"native-{name}-own-backward", native(Causal()), 1.3, rival="own", against=PLAIN, comparable=False),
    )


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 4


@cache
def _table() -> Tensor:
    return _random(_HEADS, _LENGTH, _LENGTH)


@cache
def _learned() -> Tensor:
    return _table().clone().requires_grad_()


@cache
def _relative() -> RelativeBias:
    made = RelativeBias(_HEADS)
    made.table.data.copy_(_random(*made.table.shape))
    return made


@cache
def _sinks() -> Tensor:
    return torch.linspace(-1, 1, _HEADS).requires_grad_()


@cache
def _buckets(length: int) -> Tensor:
    at = torch.arange(length)
    return _relative().bucket(at - at[:, None])


def _by_distance(s: Tensor) -> Tensor:
    at = torch.arange(s.shape[-1], dtype=s.dtype)
    return s - Alibi.for_heads(s.shape[1]).slopes[:, None, None] * (at[:, None] - at).abs()


FEATURES: Sequence[Case] = (
    *_feature("softcap", "softcap", lambda n: [Softcap(20.0)], _eager(lambda s: 20 * torch.tanh(s / 20))),
    *_feature("alibi", "ALiBi", lambda n: [Alibi.for_heads(_HEADS)], _eager(_by_distance)),
    *_feature(
        "bias",
        "a bias for every pair",
        lambda n: [Bias(_table()[:, :n, :n])],
        _eager(lambda s: s + _table()[:, : s.shape[2], : s.shape[3]]),
    ),
    *_feature(
        "learned",
        "a learned bias for every pair",
        lambda n: [Bias(_learned()[:, :n, :n])],
        _eager(lambda s: s + _learned()[:, : s.shape[2], : s.shape[3]]),
        learned=lambda: (_learned(),),
    ),
    *_feature(
        "relative",
        "T5's learned bias by distance",
        lambda n: [_relative()],
        _eager(lambda s: s + _relative().table[_buckets(s.shape[-1])].permute(2, 0, 1)),
        learned=lambda: (_relative().table,),
    ),
    *_feature(
        "sinks", "learned sinks", lambda n: [], _eager(lambda s: s, _sinks), sinks=_sinks, learned=lambda: (_sinks(),)
    ),
)

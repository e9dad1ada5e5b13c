"""What is asked of the weights of a long call, beside the time that the call itself takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regard._inspect import inspect
from regard.bench.cases import Attend, Case
from regard.bench.native import Make, native, native_case
from regard.masks import Causal
from regard.weights import AttentionWeights

_SHAPE = (1, 1, 32768, 64)
_KEPT, _BINS = 8, 256


def ask(weights: AttentionWeights, *, more: bool = False) -> Tensor:
    """Max, entropy and received mass in one pass, with ``more`` also top-k and a pooled map; entropy is returned."""
    bins = min(_BINS, weights.shape[-1])
    wanted = ("entropy", "max", "received", *((("topk", _KEPT), ("pool", bins, bins)) if more else ()))
    entropy: Tensor = weights.stats(wanted)["entropy"]
    return entropy


def _in_pass(device: torch.device) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return inspect(q, k, v, mask=Causal(), stats=("entropy", "max", "max_logit"), backend="native").out

    return attend


def _of_weights(*, more: bool) -> Make:
    def mine(device: torch.device) -> Attend:
        # Nothing of the weights is computed before they are asked.
        of: list[tuple[Tensor, AttentionWeights]] = []

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if not of or of[0][0] is not q:
                of[:] = [(q, inspect(q, k, v, mask=Causal(), backend="native").weights)]
            return ask(of[0][1], more=more)

        return attend

    return mine


def _case(name: str, title: str, target: float, mine: Make) -> Case:
    against = "the forward pass of the same call"
    return native_case(
        name, title, Causal(), native(Causal()), target, _SHAPE, mine=mine, against=against, rival="own",
        comparable=False,
    )  # fmt: skip


GATHERING: Sequence[Case] = (
    _case("inspect", "causal, output, entropy, largest weights and largest logit", 1.25, _in_pass),
    _case("weights", "causal, max, entropy and received mass of lazy weights", 1.0, _of_weights(more=False)),
    _case(
        "weights-more",
        f"causal, these, the top {_KEPT} and a map of {_BINS} x {_BINS} bins",
        1.5,
        _of_weights(more=True),
    ),
)

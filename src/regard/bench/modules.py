"""Modules that are swapped inside a model: what they cost as a whole, projections and layout included."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from regard._replace import replace
from regard.bench.cases import Attend, Case
from regard.nn import MultiHeadAttention

_SHAPE = (1, 8, 512, 512)
_TOKENS = "nn.MultiheadAttention(512, 8) in eval, swapped in place, on 8 x 512 tokens"


def swapped(*, need_weights: bool) -> Callable[[torch.device], tuple[Attend, Attend]]:
    """`torch.nn.MultiheadAttention` after `regard.replace`, and as it was, on the tokens ``q[0] (B, L, E)``."""

    def make(device: torch.device) -> tuple[Attend, Attend]:
        pairs: dict[int, tuple[nn.Module, nn.Module]] = {}

        def pair(width: int) -> tuple[nn.Module, nn.Module]:
            if width not in pairs:
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    theirs = nn.MultiheadAttention(width, 8, batch_first=True, device=device).eval()
                holder = nn.ModuleDict({"attention": theirs})
                replace(holder)
                pairs[width] = (holder["attention"], theirs)
            return pairs[width]

        def attend(which: int, q: Tensor) -> Tensor:
            x = q[0]
            with torch.inference_mode():
                out: Tensor = pair(x.shape[-1])[which](x, x, x, need_weights=need_weights)[0]
            return out

        return lambda q, k, v: attend(0, q), lambda q, k, v: attend(1, q)

    return make


def fused(*, learning: bool) -> Callable[[torch.device], tuple[Attend, Attend]]:
    """`regard.nn.MultiHeadAttention` with ``fused=True``, and with three projections, on the tokens ``q[0] (B, L, E)``.

    With ``learning`` the gradients of all their weights are computed too.
    """

    def make(device: torch.device) -> tuple[Attend, Attend]:
        pairs: dict[int, list[MultiHeadAttention]] = {}

        def pair(width: int) -> list[MultiHeadAttention]:
            if width not in pairs:
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    one, three = (MultiHeadAttention(width, width, 4096, 0.0, 8, fused=f) for f in (True, False))
                one.load_state_dict(three.state_dict())
                pairs[width] = [one.to(device), three.to(device)]
            return pairs[width]

        def attend(which: int, q: Tensor) -> Tensor:
            module, x = pair(q.shape[-1])[which], q[0]
            with torch.set_grad_enabled(learning):
                out: Tensor = module(x)
                if learning:
                    module.zero_grad()
                    out.sum().backward()
            return out.detach()

        return lambda q, k, v: attend(0, q), lambda q, k, v: attend(1, q)

    return make


MODULES: Sequence[Case] = (
    Case(
        "replace",
        _TOKENS,
        "torch's own module",
        _SHAPE,
        "native",
        swapped(need_weights=False),
        backward=False,
        target=1 / 1.25,
    ),
    Case(
        "replace-weights",
        f"{_TOKENS}, with weights averaged over heads",
        "torch's own module",
        _SHAPE,
        "native",
        swapped(need_weights=True),
        backward=False,
        target=1 / 1.25,
    ),
    Case(
        "fused",
        "MultiHeadAttention(512, 512) with fused=True, forward and backward, on 8 x 512 tokens",
        "the same with three projections",
        _SHAPE,
        "native",
        fused(learning=True),
        backward=False,
        target=1.0,
        rival="own",
    ),
    Case(
        "fused-step",
        "MultiHeadAttention(512, 512) with fused=True, forward only, on one token",
        "the same with three projections",
        (1, 1, 1, 512),
        "native",
        fused(learning=False),
        backward=False,
        target=1.0,
        rival="own",
        repeat=500,
    ),
)

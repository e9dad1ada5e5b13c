"""The native kernels against compiled FlexAttention: forward only, for on a CPU it has no backward pass and no lse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from regard.bench.cases import Attend, Case
from regard.bench.native import Make, native, native_case
from regard.masks import Causal, Mask, SlidingWindow
from regard.scores import Softcap

_AGAINST = "FlexAttention, compiled (on a CPU without backward and lse)"
_WINDOW = 1024


def _flex(visible: Callable[..., Tensor], change: Callable[..., Tensor] | None = None) -> Make:
    def make(device: torch.device) -> Attend:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        compiled = torch.compile(flex_attention, dynamic=False)
        blocks: dict[int, Any] = {}

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            length = q.shape[2]
            if length not in blocks:
                blocks[length] = create_block_mask(visible, None, None, length, length, device=str(device))
            out = compiled(q, k, v, score_mod=change, block_mask=blocks[length])
            assert isinstance(out, Tensor)
            return out

        return attend

    return make


def _case(name: str, title: str, mask: Mask, theirs: Make, **arguments: Any) -> Case:
    mine = native(mask, **arguments)
    return native_case(name, title, mask, theirs, 1, (1, 8, 4096, 64), mine=mine, rival="flex", against=_AGAINST)


FLEX: Sequence[Case] = (
    _case("native-flex", "causal", Causal(), _flex(lambda b, h, i, j: i >= j)),
    _case(
        "native-flex-window",
        "window of 1,024 keys",
        SlidingWindow.of_width(_WINDOW),
        _flex(lambda b, h, i, j: (i >= j) & (i - j < _WINDOW)),
    ),
    _case(
        "native-flex-softcap",
        "causal, softcap",
        Causal(),
        _flex(lambda b, h, i, j: i >= j, lambda s, b, h, i, j: 20 * torch.tanh(s / 20)),
        score_mod=Softcap(20.0),
    ),
)

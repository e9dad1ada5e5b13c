"""What the cases of the native kernels share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from regard._attention import attention
from regard.bench.cases import Attend, Case
from regard.masks import Mask

Make = Callable[[torch.device], Attend]
FUSED = "torch's fused kernel"
MASKED = "torch's fused kernel with the dense mask"
PLAIN = "our own plain causal attention"
BF16 = torch.bfloat16


def native(mask: Mask, **arguments: Any) -> Make:
    """`regard.attention` on the native kernels."""

    def make(device: torch.device) -> Attend:
        here = mask.to(device)
        return lambda q, k, v: attention(q, k, v, mask=here, backend="native", **arguments)

    return make


def native_case(
    name: str, title: str, mask: Mask, theirs: Make, target: float, shape: tuple[int, ...], **more: Any
) -> Case:
    """A case whose name ends in ``-backward`` if that is measured; ``more`` are fields of `Case`, and ``mine``."""
    batch, heads, length, width = shape
    dtype = "bfloat16" if more.get("dtype") is BF16 else "float32"
    backward = name.endswith("-backward")
    mine: Make = more.pop("mine", native(mask))
    more.setdefault("visible", visible(mask, length) if "q_len" not in more else length)
    return Case(
        name,
        f"native, {dtype}, {title}, forward" + (" + backward" if backward else ""),
        more.pop("against", FUSED),
        (batch, heads, length, width),
        "native",
        lambda device: (mine(device), theirs(device)),
        backward,
        target,
        **more,
    )


def visible(mask: Mask, length: int) -> int:
    """Query-key pairs of one head that the mask shows."""
    rows = mask.intervals(mask.frame(length, length))
    assert rows is not None
    return int((rows.stop - rows.start).sum())

"""What the kernels take: sizes, whichever way a call comes to them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from regard._call import Call

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_FEATURES = 256
MAX_TOKENS = 2**31 - 1


def dtypes(call: Call) -> Iterator[str]:
    """Why the kernels cannot do these dtypes."""
    if call.q.dtype not in DTYPES:
        names = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        yield f"takes {names} only, and q, k and v are {str(call.q.dtype).removeprefix('torch.')}"


def widths(call: Call) -> Iterator[str]:
    """Why the kernels cannot do features as many as these, one sentence a reason."""
    for name, x in (("q and k", call.q), ("v", call.v)):
        if not 1 <= x.shape[-1] <= MAX_FEATURES:
            yield f"takes 1 to {MAX_FEATURES} features, and {name} have {x.shape[-1]}"


def lengths(call: Call) -> Iterator[str]:
    """Why the kernels cannot do tokens as many as these."""
    if max(call.q.shape[2], call.k.shape[2]) > MAX_TOKENS:
        yield f"takes fewer than 2^31 tokens, and the call has {call.q.shape[2]} x {call.k.shape[2]}"

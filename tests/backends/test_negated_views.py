"""Views that torch negates when it reads them: their pointers say the opposite of what they hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import regard as rg
from regard.backends.native import library


@pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")
@pytest.mark.parametrize(
    ("plain", "negated"),
    [(False, name) for name in ("q", "k", "v", "bias", "sinks", "dout")]
    + [(True, name) for name in ("q", "k", "v", "dout")],
)
def test_a_view_that_torch_negates_when_it_reads_it(plain: bool, negated: str) -> None:
    tensors = {name: torch.randn(1, 2, 9, 8) for name in ("q", "k", "v", "dout")}
    tensors |= {"bias": torch.randn(1, 2, 9, 9), "sinks": torch.randn(2)}
    found = []
    for x in (torch._neg_view(tensors[negated]), -tensors[negated]):  # as is the imaginary part of a conjugate
        given = tensors | {negated: x}
        q, k, v = (given[name].requires_grad_() for name in ("q", "k", "v"))
        more: dict[str, Any] = {} if plain else {"score_mod": rg.Bias(given["bias"]), "sinks": given["sinks"]}
        for _ in range(2):  # the second finds what the first has made ready
            out = rg.attention(q, k, v, backend="native", **more)
            grads = torch.autograd.grad(out, (q, k, v), given["dout"])
        found.append((out, *grads))
    for mine, plainly in zip(*found, strict=True):
        assert torch.equal(mine, plainly)

"""Whatever is changed in place between forward and backward: autograd complains, or the gradient is still right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg

ALLOWED = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) > 0.4

Given = dict[str, Any]

CHANGED: dict[str, tuple[Tensor, Callable[[Tensor], Given]]] = {
    "dense mask": (ALLOWED, lambda t: {"mask": rg.Dense(t)}),
    "valid keys": (ALLOWED[:2], lambda t: {"mask": rg.Padding.from_valid(t)}),
    "document ids": (torch.arange(7) // 3, lambda t: {"mask": rg.Document(t)}),
    "lengths": (torch.tensor([5, 7]), lambda t: {"mask": rg.Padding(t)}),
    "part of a mask": (torch.tensor([5, 7]), lambda t: {"mask": ~(rg.Causal() & rg.Padding(t))}),
    "query positions": (torch.arange(2, 7), lambda t: {"mask": rg.Causal(), "q_positions": t}),
    "key positions": (torch.arange(7), lambda t: {"mask": rg.Causal(), "k_positions": t}),
    "bias": (torch.arange(7.0), lambda t: {"score_mod": rg.Bias(t)}),
    "slopes": (torch.ones(4), lambda t: {"score_mod": rg.Alibi(t)}),
    "sinks": (torch.ones(4), lambda t: {"sinks": t}),
}


# The torch backend takes masks alone.
RUNS = [("torch", what) for what in CHANGED if what not in ("bias", "slopes", "sinks")]
RUNS += [(name, what) for name in ("reference", "blockwise") for what in CHANGED]


@pytest.mark.parametrize(("name", "what"), RUNS)
def test_a_change_before_backward_is_noticed_or_harmless(name: str, what: str) -> None:
    original, given = CHANGED[what]
    tensor = original.clone()
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, n, 4, generator=generator).requires_grad_() for h, n in ((4, 5), (2, 7), (2, 7)))
    out = rg.attention(q, k, v, **given(tensor), backend=name).square().sum()
    before = torch.autograd.grad(out, (q, k, v), retain_graph=True)
    if tensor.dtype == torch.bool:
        tensor.logical_not_()
    else:
        tensor[0] -= 4
    after, complaint = before, None
    try:
        after = torch.autograd.grad(out, (q, k, v))
    except RuntimeError as error:
        complaint = str(error)
    assert complaint is None or "modified by an inplace operation" in complaint
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("what", ["dense mask", "bias", "sinks"])
def test_inference_tensors_serve_where_no_gradient_is_wanted_of_them(what: str) -> None:
    original, given = CHANGED[what]
    with torch.inference_mode():
        tensor = original.clone()
    q = torch.ones(2, 4, 5, 3, requires_grad=True)
    k = torch.ones(2, 2, 7, 3)
    rg.attention(q, k, k, **given(tensor), backend="blockwise").sum().backward()
    assert q.grad is not None

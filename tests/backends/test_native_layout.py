"""How the native backend lays out what it returns: heads beside one another within a token where q has them so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.backends.native import library

pytestmark = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")

CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"mask": rg.Causal()},
    "rows of their own": {"mask": rg.Padding(torch.tensor([13, 9]))},
    "sinks": {"sinks": torch.tensor([0.5, -1.0, 0.0, 2.0])},
}


def split(features: int, dtype: torch.dtype) -> Tensor:
    """``(2, 4, 13, features)`` as a model splits a token's features into heads."""
    return torch.randn(2, 13, 4, features, dtype=dtype).transpose(1, 2)


@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_joining_heads_takes_no_copy_and_changes_no_bit(
    dtype: torch.dtype, width: int, arguments: dict[str, Any]
) -> None:
    ops = [split(n, dtype).requires_grad_() for n in (8, 8, width)]
    same = [x.detach().contiguous().requires_grad_() for x in ops]
    grad_out = torch.randn(2, 4, 13, width).to(dtype)
    for _ in range(2):  # a plain call is prepared by the first
        with torch.no_grad():
            assert rg.attention(*ops, backend="native", **arguments).transpose(1, 2).is_contiguous()
        joined = rg.attention(*ops, backend="native", **arguments)
        apart = rg.attention(*same, backend="native", **arguments)
        assert joined.transpose(1, 2).is_contiguous()
        assert apart.is_contiguous()
        assert torch.equal(joined, apart)
        ours = torch.autograd.grad(joined, ops, grad_out)
        theirs = torch.autograd.grad(apart, same, grad_out)
        assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
def test_what_comes_back_may_be_written_into(arguments: dict[str, Any]) -> None:
    ops = [split(8, torch.float32).requires_grad_() for _ in range(3)]
    for _ in range(2):
        out = rg.attention(*ops, backend="native", **arguments)
        expected = out + 1
        out += 1  # autograd refuses this for views that a function returns
        assert torch.equal(out, expected)

"""All weights at once and their mean over heads: the same numbers with a graph and without, and the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.testing.cases import Case
from regard.testing.tolerance import assert_close, expect
from regard.weights import whole

pytestmark = pytest.mark.usefixtures("small_tiles")
Operands = tuple[Tensor, Tensor, Tensor]


def test_without_a_graph_they_are_the_oracles(case: Case, backend: str) -> None:
    given: dict[str, Any] = {**case.operands, **case.arguments, "dropout_p": 0.0}
    expected = expect(**given)
    with torch.no_grad():
        weights = rg.inspect(**given, backend=backend).weights
        assert_close({"weights": weights.dense()}, expected, str(case))
    dense = weights.dense()
    mean = dense.mean(-3) if weights.ndim > 2 else dense
    torch.testing.assert_close(weights.head_mean(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tile", [1, 60, 1 << 20])
def test_the_mean_over_heads_of_a_plain_call_and_its_gradients(
    qkv: Operands, backend: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "TILE", tile)
    q, k, v = qkv[0], *(x.repeat_interleave(2, 1).detach().requires_grad_() for x in qkv[1:])
    cotangent = torch.randn(2, 7, 11, dtype=torch.float64)
    for sinks in (None, torch.randn(4, dtype=torch.float64, requires_grad=True)):
        leaves = [q, k, *([] if sinks is None else [sinks])]
        seen = rg.inspect(q, k, v, scale=0.7, sinks=sinks, backend=backend)
        expected = seen.weights.dense().mean(1)
        mean = seen.weights.head_mean()
        torch.testing.assert_close(mean, expected)
        ours, theirs = (torch.autograd.grad(x, leaves, cotangent, retain_graph=True) for x in (mean, expected))
        torch.testing.assert_close(ours, theirs)


def test_a_second_derivative_is_refused(qkv: Operands) -> None:
    q, k, v = qkv[0], *(x.repeat_interleave(2, 1) for x in qkv[1:])
    mean = rg.inspect(q, k, v, backend="reference").weights.head_mean()
    (grad,) = torch.autograd.grad(mean.square().sum(), q, create_graph=True)
    with pytest.raises(rg.UnsupportedError, match="no second derivative"):
        grad.sum().backward()


def test_one_head_without_a_dim_for_it() -> None:
    q, k, v = torch.randn(3, 5, 4).unbind()
    weights = rg.inspect(q, k, v).weights
    assert torch.equal(weights.head_mean(), weights.dense())


def test_a_limit_in_bytes(qkv: Operands) -> None:
    with torch.no_grad():
        weights = rg.inspect(*qkv).weights
    assert weights.head_mean(max_bytes=2 * 7 * 11 * 8).shape == (2, 7, 11)
    with pytest.raises(rg.ArgumentError, match=r"\(2, 7, 11\) take 1\.23 kB, and the limit is 1 kB"):
        weights.head_mean(max_bytes=1000)


def test_a_change_in_place_is_noticed(qkv: Operands) -> None:
    q, k, v = (x.detach().clone() for x in (qkv[0], *(x.repeat_interleave(2, 1) for x in qkv[1:])))
    weights = rg.inspect(q, k, v).weights
    q.add_(1)
    with pytest.raises(rg.StaleError):
        weights.head_mean()

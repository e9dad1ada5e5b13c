"""Rows that see nothing: out 0, weights 0, lse -inf or the sink, and no gradient, on every backend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import regard as rg
from regard._dispatch import backend_names
from regard.testing.cases import random_gradients, random_operands
from regard.testing.claims import claiming, differentiable, lse_differentiable
from regard.testing.tolerance import assert_close_to_oracle

BACKWARD = claiming(differentiable)
LSE_BACKWARD = claiming(lse_differentiable)
SCORES = claiming(lambda can: can.score_mods)
SINKS = claiming(lambda can: can.sinks)
every = pytest.mark.parametrize("name", backend_names())

EMPTY_ROWS = [
    rg.Nothing(),
    rg.Padding(torch.tensor([0, 11])),
    rg.Causal() & ~rg.Prefix(7),
    rg.Dense(torch.arange(7)[:, None] > torch.tensor([2])),
]
NAMES = ["nothing", "padding of a whole entry", "causal without the prefix", "dense"]


@every
@pytest.mark.parametrize("mask", EMPTY_ROWS, ids=NAMES)
def test_a_row_that_sees_nothing_gives_zero_and_minus_infinity(name: str, mask: rg.Mask) -> None:
    q, k, v = random_operands()
    empty = ~mask.dense(7, 11, batch=2, heads=2).expand(2, 2, 7, 11).any(-1)
    assert empty.any()
    seen = rg.inspect(q, k, v, mask=mask, backend=name)
    assert (seen.out[empty] == 0).all()
    assert (seen.lse[empty] == -math.inf).all()
    assert seen.lse[~empty].isfinite().all()
    assert (seen.weights.dense()[empty] == 0).all()
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, mask=mask)


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize("mask", EMPTY_ROWS, ids=NAMES)
def test_a_row_that_sees_nothing_has_no_gradient(name: str, mask: rg.Mask) -> None:
    """Not even from a gradient that comes in through its infinite lse."""
    q, k, v = (x.requires_grad_() for x in random_operands())
    allowed = mask.dense(7, 11, batch=2, heads=2).expand(2, 2, 7, 11)
    dq, dk, dv = random_gradients(name, [q, k, v], lse=name in LSE_BACKWARD, mask=mask)
    assert (dq[~allowed.any(-1)] == 0).all()
    for grad in (dk, dv):
        assert (grad[~allowed.any(-2)] == 0).all()
    assert all(grad.isfinite().all() for grad in (dq, dk, dv))


@pytest.mark.parametrize("name", SINKS)
def test_with_a_sink_an_empty_row_has_the_sinks_lse(name: str) -> None:
    q, k, v = random_operands()
    sinks = torch.tensor([0.7, -1.3])
    seen = rg.inspect(q, k, v, mask=rg.Nothing(), sinks=sinks, backend=name)
    assert (seen.out == 0).all()
    torch.testing.assert_close(seen.lse, sinks[:, None].expand(2, 2, 7))


@pytest.mark.parametrize("name", [name for name in SINKS if name in LSE_BACKWARD])
def test_with_a_sink_only_the_sinks_share_of_an_empty_row_has_a_gradient(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in random_operands())
    sinks = torch.tensor([0.7, -1.3], requires_grad=True)
    seen = rg.inspect(q, k, v, mask=rg.Nothing(), sinks=sinks, backend=name)
    dlse = torch.randn(2, 2, 7)
    *rest, dsinks = torch.autograd.grad([seen.out, seen.lse], [q, k, v, sinks], [torch.randn_like(seen.out), dlse])
    assert all((grad == 0).all() for grad in rest)
    torch.testing.assert_close(dsinks, dlse.sum((0, 2)))


@pytest.mark.parametrize("name", SCORES)
def test_a_row_whose_every_visible_score_is_minus_infinity_sees_nothing(name: str) -> None:
    q, k, v = random_operands()
    bias = torch.zeros(7, 11)
    bias[3, :5] = -math.inf
    seen = rg.inspect(q, k, v, mask=rg.Prefix(5), score_mod=rg.Bias(bias), backend=name)
    assert (seen.out[:, :, 3] == 0).all()
    assert (seen.lse[:, :, 3] == -math.inf).all()
    others = [0, 1, 2, 4, 5, 6]
    assert seen.out[:, :, others].all()


@pytest.mark.parametrize("name", [name for name in SCORES if name in LSE_BACKWARD])
def test_a_row_whose_every_visible_score_is_minus_infinity_has_no_gradient(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in random_operands())
    bias = torch.zeros(7, 11)
    bias[3, :5] = -math.inf
    bias.requires_grad_()
    mods = [rg.Softcap(20.0), rg.Bias(bias)]
    dq, dk, dv, dbias = random_gradients(name, [q, k, v, bias], lse=True, mask=rg.Prefix(5), score_mod=mods)
    assert (dq[:, :, 3] == 0).all()
    assert (dbias[3] == 0).all()
    assert all(grad.isfinite().all() for grad in (dq, dk, dv, dbias))
    assert dbias[4, :5].all()


@every
@pytest.mark.parametrize(("q_len", "k_len"), [(0, 3), (3, 0), (0, 0)])
def test_lengths_of_zero(name: str, q_len: int, k_len: int) -> None:
    q, k, v = random_operands(q_len=q_len, k_len=k_len)
    if name == "flex":
        with pytest.raises(rg.UnsupportedError, match="takes no empty tensors"):
            rg.attention(q, k, v, backend=name)
        return
    seen = rg.inspect(q, k, v, backend=name)
    assert seen.out.shape == (2, 2, q_len, 3)
    assert (seen.out == 0).all()
    assert (seen.lse == -math.inf).all()


@pytest.mark.parametrize("came", ["out", "lse", "entropy"])
@pytest.mark.parametrize(
    ("name", "hidden"),
    [*((name, "by the mask") for name in BACKWARD), *((name, "by the scores") for name in BACKWARD if name in SCORES)],
)
def test_what_comes_in_at_a_row_that_sees_nothing_reaches_no_gradient(name: str, hidden: str, came: str) -> None:
    """Not even NaN, as from ``torch.where(seen, out / out.norm(), 0)`` and ``torch.where(seen, lse.square(), 0)``."""
    q, k, v = (x.requires_grad_() for x in random_operands())
    bias = torch.zeros(7, 11)
    bias[3] = -math.inf
    arguments: dict[str, Any] = {"mask": rg.Dense(bias == 0)}
    leaves = [q, k, v]
    if hidden == "by the scores":
        arguments = {"score_mod": [rg.Softcap(3.0), rg.Bias(bias.requires_grad_())]}
        leaves.append(bias)
    if came != "out" and name not in LSE_BACKWARD:
        with pytest.raises(rg.UnsupportedError, match="has no gradient through lse"):
            rg.inspect(q, k, v, backend=name, **arguments)
        return

    def gradients(odd: float) -> tuple[torch.Tensor, ...]:
        if came == "out":
            found = rg.attention(q, k, v, backend=name, **arguments)
        else:
            seen = rg.inspect(q, k, v, backend=name, stats=("entropy",), **arguments)
            found = seen.lse if came == "lse" else seen.stats["entropy"]
        given = torch.linspace(-1, 1, found.numel()).reshape(found.shape)
        given[:, :, 3] = odd
        return torch.autograd.grad(found, leaves, given, materialize_grads=True)

    for odd, right in zip(gradients(math.nan), gradients(0.0), strict=True):
        assert torch.equal(odd, right)

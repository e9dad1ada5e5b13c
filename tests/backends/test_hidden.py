"""What is hidden stays hidden: nothing odd at a hidden pair reaches an output or a gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import regard as rg
from regard._dispatch import backend_names
from regard.testing.cases import random_gradients, random_operands
from regard.testing.claims import claiming, differentiable, lse_differentiable
from regard.testing.tolerance import assert_close_to_oracle

BACKWARD = claiming(differentiable)
LSE_BACKWARD = claiming(lse_differentiable)
SCORES = claiming(lambda can: can.score_mods)
every = pytest.mark.parametrize("name", backend_names())

HIDING = [
    rg.Prefix(6),
    rg.Padding(torch.tensor([6, 3])),
    rg.Padding.from_valid(torch.arange(11).expand(2, 11) < 6),
    rg.Document(torch.tensor([5, 5, 5, 5, 1, 1, 5, 5, 5, 5, 5])) & rg.Prefix(6),
    rg.Dense((torch.arange(11) < 6).expand(7, 11)),
    rg.Predicate(lambda b, h, q, k: (k < 6) & (q > k)),
]


@every
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mask", HIDING, ids=repr)
def test_a_key_that_nobody_sees_reaches_nothing(name: str, odd: float, mask: rg.Mask) -> None:
    q, k, v = random_operands()
    k[:, :, 6:], v[:, :, 6:] = odd, odd
    seen = rg.inspect(q, k, v, mask=mask, backend=name)
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, mask=mask)
    if name in BACKWARD:
        q, k, v = (x.requires_grad_() for x in (q, k, v))
        grads = random_gradients(name, [q, k, v], lse=name in LSE_BACKWARD, mask=mask)
        assert all(grad.isfinite().all() for grad in grads)
        assert all((grad[:, :, 6:] == 0).all() for grad in grads[1:])


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_bias_at_a_hidden_pair_reaches_nothing(name: str, odd: float) -> None:
    q, k, v = random_operands()
    clean = torch.randn(7, 11)
    bias = clean.masked_fill(~rg.Causal().dense(7, 11)[0, 0], odd)
    mods: list[rg.ScoreModification] = [rg.Bias(bias), rg.Softcap(5.0)]
    seen = rg.inspect(q, k, v, mask=rg.Causal(), score_mod=mods, backend=name)
    torch.testing.assert_close(
        seen.out, rg.attention(q, k, v, mask=rg.Causal(), score_mod=[rg.Bias(clean), mods[1]], backend=name)
    )
    if name in LSE_BACKWARD:
        q, k, v, bias = (x.requires_grad_() for x in (q, k, v, bias))
        grads = random_gradients(name, [q, k, v, bias], lse=True, mask=rg.Causal(), score_mod=[rg.Bias(bias), mods[1]])
        assert all(grad.isfinite().all() for grad in grads)
        assert (grads[3][~rg.Causal().dense(7, 11)[0, 0]] == 0).all()


@pytest.mark.parametrize("name", [name for name in SCORES if name != "native"])  # which refuses functions
def test_a_function_that_is_odd_at_hidden_pairs_reaches_nothing(name: str) -> None:
    """``sqrt(q - k)`` is NaN for keys of the future, and its derivative infinite at the hidden present."""
    q, k, v = random_operands()
    slope = torch.tensor(0.3)

    def rooted(s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return s - torch.sqrt(slope * (q - k)) + torch.where(q > k, 0.0, math.inf)

    mask = rg.Causal() & ~rg.SlidingWindow(0)
    seen = rg.inspect(q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted), backend=name)
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted))
    if name in LSE_BACKWARD:
        tensors = [x.requires_grad_() for x in (q, k, v, slope)]
        seen = rg.inspect(q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted), backend=name)
        dout, dlse = torch.randn_like(seen.out), torch.randn_like(seen.lse)
        grads = torch.autograd.grad([seen.out, seen.lse], tensors, [dout, dlse])
        names = ["q", "k", "v", "slope"]
        assert_close_to_oracle(
            {f"d{n}": g for n, g in zip(names, grads, strict=True)},
            q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted), dout=dout, dlse=dlse,
            wrt=dict(zip(names, tensors, strict=True)),
        )  # fmt: skip

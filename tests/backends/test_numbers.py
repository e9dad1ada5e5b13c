"""Dtypes, precision, autocast, order, determinism and derivatives, on every backend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard._dispatch import backend, backend_names
from regard.testing.cases import random_operands
from regard.testing.claims import claiming, differentiable, lse_differentiable
from regard.testing.tolerance import assert_close_to_oracle

BACKWARD = claiming(differentiable)
LSE_BACKWARD = claiming(lse_differentiable)
SCORES = claiming(lambda can: can.score_mods)
every = pytest.mark.parametrize("name", backend_names())


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in backend_names() for dtype in backend(name).capabilities.dtypes]
)
def test_lse_is_the_natural_log_in_the_accumulation_dtype(name: str, dtype: torch.dtype) -> None:
    q, k, v = (torch.zeros(1, 1, n, 4, dtype=dtype) for n in (2, 7, 7))
    seen = rg.inspect(q, k, v, backend=name)
    assert seen.out.dtype == dtype
    assert seen.lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(seen.lse, torch.full_like(seen.lse, math.log(7)))


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_accumulates_in_float32(name: str, dtype: torch.dtype) -> None:
    """Counting 3,001 ones in bfloat16 would stop at 256, in float16 at 2,048."""
    q, k, v = (torch.zeros(1, 1, 1, 4, dtype=dtype), torch.zeros(1, 1, 3001, 4, dtype=dtype), torch.ones(1, 1, 3001, 4))
    seen = rg.inspect(q, k, v.to(dtype), backend=name)
    assert (seen.out == 1).all()
    torch.testing.assert_close(seen.lse.exp(), torch.full_like(seen.lse, 3001), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", BACKWARD)
def test_low_precision_gradients_accumulate_in_float32(name: str) -> None:
    q, k = torch.zeros(1, 1, 3001, 4, dtype=torch.bfloat16), torch.zeros(1, 1, 1, 4, dtype=torch.bfloat16)
    v = torch.ones(1, 1, 1, 4, dtype=torch.bfloat16, requires_grad=True)
    rg.attention(q, k, v, backend=name).backward(torch.ones(1, 1, 3001, 4, dtype=torch.bfloat16))
    assert v.grad is not None
    torch.testing.assert_close(v.grad.float(), torch.full((1, 1, 1, 4), 3001.0), rtol=2**-8, atol=0)


@every
def test_large_scores_do_not_overflow(name: str) -> None:
    q, k, v = (100 * x for x in random_operands())
    seen = rg.inspect(q, k, v, scale=10.0, backend=name)
    assert seen.out.isfinite().all()
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, scale=10.0)


@every
def test_the_scale_is_one_over_the_root_of_the_features(name: str) -> None:
    q, k, v = random_operands(width=16)
    torch.testing.assert_close(
        rg.attention(q, k, v, backend=name), rg.attention(q, k, v, scale=0.25, backend="reference")
    )


@pytest.mark.parametrize("name", SCORES)
def test_score_changes_apply_in_the_given_order(name: str) -> None:
    q, k, v = random_operands(heads=3, kv_heads=3)
    cap, alibi = rg.Softcap(0.5), rg.Alibi.for_heads(3)
    outs = [rg.attention(q, k, v, score_mod=mods, backend=name) for mods in ([cap, alibi], [alibi, cap])]
    assert not torch.allclose(outs[0], outs[1])
    for out, mods in zip(outs, ([cap, alibi], [alibi, cap]), strict=True):
        assert_close_to_oracle(out, q, k, v, score_mod=mods)


@every
def test_autocast_casts_the_random_operands(name: str) -> None:
    q, k, v = random_operands()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = rg.inspect(q, k, v, mask=rg.Causal(), backend=name)
        weights = seen.weights.dense()
    assert seen.out.dtype == torch.bfloat16
    low = rg.inspect(*(x.bfloat16() for x in (q, k, v)), mask=rg.Causal(), backend=name)
    assert torch.equal(seen.out, low.out)
    assert torch.equal(seen.lse, low.lse)
    assert torch.equal(weights, low.weights.dense())


@pytest.mark.parametrize("name", BACKWARD)
def test_autocast_returns_gradients_in_the_dtype_of_the_random_operands(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in random_operands())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = rg.attention(q, k, v, backend=name)
    out.float().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.float32 for x in (q, k, v))


@pytest.mark.parametrize("name", ["reference", "blockwise"])
def test_the_same_call_gives_the_same_bits(name: str) -> None:
    bias = torch.randn(4, 1, 150, requires_grad=True)
    q, k, v = (x.requires_grad_() for x in random_operands(heads=4, kv_heads=2, q_len=130, k_len=150))

    def bits() -> list[Tensor]:
        torch.manual_seed(5)
        mask = rg.Causal() | rg.Dilated(7)
        seen = rg.inspect(q, k, v, mask=mask, score_mod=rg.Bias(bias), dropout_p=0.2, backend=name)
        grads = torch.autograd.grad([seen.out, seen.lse], [q, k, v, bias], [seen.out.cos(), seen.lse.cos()])
        return [seen.out, seen.lse, *grads]

    assert all(torch.equal(x, y) for x, y in zip(bits(), bits(), strict=True))


@pytest.mark.parametrize("name", claiming(lambda can: differentiable(can) and not can.higher_derivatives))
def test_a_second_derivative_is_refused_and_names_the_reference(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in random_operands())
    out = rg.attention(q, k, v, mask=rg.Causal(), backend=name)
    (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(rg.UnsupportedError, match='backend="reference"'):
        torch.autograd.grad(dq.sum(), k)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, in jvp
@pytest.mark.parametrize("name", claiming(lambda can: not can.higher_derivatives))
def test_forward_mode_and_vmap_are_refused_and_name_the_reference(name: str) -> None:
    q, k, v = random_operands()
    with pytest.raises(rg.UnsupportedError, match='backend="reference"'):
        torch.func.jvp(lambda q: rg.attention(q, k, v, backend=name), (q,), (q,))
    with pytest.raises(rg.UnsupportedError, match='backend="reference"'):
        torch.func.vmap(lambda q, k, v: rg.attention(q, k, v, backend=name))(q, k, v)


@every
def test_a_backend_asked_for_is_used_or_refused(name: str) -> None:
    can = backend(name).capabilities
    q, k, v = random_operands()
    for claimed, argument, word in (
        (can.dropout, {"dropout_p": 0.5}, "dropout"),
        (can.sinks, {"sinks": torch.zeros(2)}, "sinks"),
        (can.score_mods, {"score_mod": rg.Softcap(3.0)}, "score change"),
    ):
        arguments: Any = argument
        if claimed:
            assert rg.attention(q, k, v, backend=name, **arguments).isfinite().all()
        else:
            with pytest.raises(rg.UnsupportedError, match=f"backend='{name}' cannot do this call: .*{word}"):
                rg.attention(q, k, v, backend=name, **arguments)


@pytest.mark.parametrize("name", [name for name in LSE_BACKWARD if not backend(name).capabilities.higher_derivatives])
def test_several_gradients_at_once_are_refused_and_name_the_reference(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in random_operands())
    seen = rg.inspect(q, k, v, backend=name, stats=("entropy",))
    # The second call of a kind may go a shorter way.
    outs = [rg.attention(q, k, v, backend=name) for _ in range(2)]
    for found in (*outs, seen.out, seen.lse, seen.stats["entropy"]):
        several = torch.ones(3, *found.shape)
        with pytest.raises(rg.UnsupportedError, match=r'takes one gradient at a time.*backend="reference"'):
            torch.autograd.grad(found, q, several, is_grads_batched=True, retain_graph=True)
        with pytest.raises(rg.UnsupportedError, match=r'takes one gradient at a time.*backend="reference"'):
            torch.func.vmap(lambda g, y=found: torch.autograd.grad(y, q, g, retain_graph=True)[0])(several)


@pytest.mark.parametrize("unknown", ["fastest", 3, ["native"]])
def test_an_unknown_backend_is_refused(unknown: Any) -> None:
    with pytest.raises(
        rg.ArgumentError, match="backend must be one of 'native', 'torch', 'flex', 'blockwise', 'reference'"
    ):
        rg.attention(*random_operands(), backend=unknown)

"""The oracle against numbers worked out by hand and loops of plain Python, so that nothing judges itself."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.testing import assert_close_to_oracle, make_case, oracle
from regard.testing.oracle import keeps
from regard.testing.plain import plain
from regard.testing.tolerance import Expected, assert_close, expect


def test_two_keys_by_hand() -> None:
    """Scores log 1 and log 3: weights 1/4 and 3/4."""
    q, k = torch.ones(1, 1), torch.tensor([[0.0], [math.log(3)]])
    seen = oracle(q, k, torch.tensor([[4.0], [8.0]]), scale=1.0)
    torch.testing.assert_close(seen.weights, torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    torch.testing.assert_close(seen.out, torch.tensor([[7.0]], dtype=torch.float64))
    torch.testing.assert_close(seen.lse, torch.tensor([math.log(4)], dtype=torch.float64))


def test_a_sink_takes_its_share() -> None:
    """A sink of log 4 beside keys of weight 1 and 3 leaves them 1/8 and 3/8."""
    q, k = torch.ones(1, 1), torch.tensor([[0.0], [math.log(3)]])
    seen = oracle(q, k, torch.tensor([[4.0], [8.0]]), scale=1.0, sinks=torch.tensor([math.log(4)]))
    torch.testing.assert_close(seen.weights, torch.tensor([[0.125, 0.375]], dtype=torch.float64))
    torch.testing.assert_close(seen.lse, torch.tensor([math.log(8)], dtype=torch.float64))


def test_an_empty_row_by_hand() -> None:
    q, k, v = (torch.randn(3, 2, requires_grad=True) for _ in range(3))
    seen = oracle(q, k, v, mask=rg.SlidingWindow(0) & ~rg.Prefix(1))
    assert (seen.out[0] == 0).all()
    assert (seen.weights[0] == 0).all()
    assert seen.lse[0] == -math.inf
    grads = torch.autograd.grad([seen.out, seen.lse], [q, k, v], [torch.ones_like(seen.out), torch.ones_like(seen.lse)])
    assert all((grad[0] == 0).all() for grad in grads)


SMALL = [seed for seed in range(300) if make_case(seed).dlse.numel() * make_case(seed).operands["k"].shape[-2] < 200]


@pytest.mark.parametrize("seed", SMALL)
def test_agrees_with_a_loop(seed: int) -> None:
    """The formula once more, number by number, for small cases."""
    case = make_case(seed)
    call = case.call()
    assert not isinstance(call.seed, torch.Tensor)
    q, k, v = case.operands.values()
    seen = oracle(q, k, v, **case.arguments, seed=call.seed)
    q, k, v = (x.detach().double() for x in (call.q, call.k, call.v))
    out, lse = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64), torch.zeros(q.shape[:3], dtype=torch.float64)
    at = call.frame.everywhere()
    allowed = call.mask.allowed(at).expand(*q.shape[:3], k.shape[2])
    changed = call.scale * torch.einsum("bhid,bhjd->bhij", q, k.repeat_interleave(call.group, 1))
    with torch.no_grad():
        for mod in call.score_mods:
            changed = mod.modify(changed, at)
    for b, h, i in [(b, h, i) for b in range(q.shape[0]) for h in range(q.shape[1]) for i in range(q.shape[2])]:
        total = 0.0 if call.sinks is None else math.exp(call.sinks.detach()[h])
        mixed = torch.zeros(v.shape[3], dtype=torch.float64)
        for j in range(k.shape[2]):
            if allowed[b, h, i, j]:
                e = math.exp(float(changed[b, h, i, j]))
                total += e
                if call.seed is None or kept_by_hand(call.seed, call.dropout_p, b, h, i, j):
                    mixed += e / (1 - call.dropout_p) * v[b, h // call.group, j]
        out[b, h, i] = mixed / total if total else 0
        lse[b, h, i] = math.log(total) if total else -math.inf
    torch.testing.assert_close(seen.out.detach(), call.restore(out))
    torch.testing.assert_close(seen.lse.detach(), call.restore(lse))


def kept_by_hand(seed: int, p: float, b: int, h: int, i: int, j: int) -> bool:
    """The contract's dropout in Python's own integers."""

    def mix(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    state = 0
    for word in (seed % 2**32, seed >> 32, b, h, i):
        state = mix(((state ^ word) + 0x9E3779B9) % 2**32)
    return mix(state ^ j * 0x9E3779B9 % 2**32) >= math.floor(p * 2**32)


def test_dropout_is_the_contracts_hash() -> None:
    places = torch.tensor([(0, 0, 0, 0), (1, 2, 3, 4), (7, 0, 130_000, 2**31), (0, 5, 1, 1)])
    for seed in (0, 1, 2**62 + 12345):
        got = keeps(seed, 0.37, *places.unbind(1)).tolist()
        assert got == [kept_by_hand(seed, 0.37, *place) for place in places.tolist()]


def test_gradients_are_those_of_the_formula() -> None:
    q, k, v = (torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5, 5))
    sinks = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def both(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
        seen = oracle(q, k, v, mask=rg.Causal(), score_mod=rg.Softcap(2.0), sinks=sinks)
        return seen.out, seen.lse

    assert torch.autograd.gradcheck(both, (q, k, v, sinks))


def test_dropout_needs_its_seed() -> None:
    with pytest.raises(rg.ArgumentError, match=r"got dropout_p=0.5 and no seed. Give call.seed"):
        oracle(*torch.randn(3, 4, 2).unbind(), dropout_p=0.5)


# --- the tolerance rule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_plain_path_is_within_its_own_budget(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 2, 2, 13, 8).to(dtype).unbind()
    assert_close_to_oracle(plain(q, k, v, mask=rg.Causal())._asdict(), q, k, v, mask=rg.Causal())


@pytest.mark.parametrize("name", ["out", "lse", "weights", "dq", "dk", "dv"])
def test_a_small_fault_is_found_where_it_is(name: str) -> None:
    """A thousandth, at one place, in float32."""
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, 2, 13, 8).unbind())
    dout, dlse = torch.randn(2, 2, 13, 8), torch.randn(2, 2, 13)
    expected = expect(q, k, v, dout=dout, dlse=dlse, wrt={"q": q, "k": k, "v": v}, mask=rg.Causal())
    actual = {n: e.value.float() for n, e in expected.items()}
    assert_close(actual, expected)
    spot = (1, 0, 12, 5)[: actual[name].ndim]
    actual[name][spot] += 1e-3
    with pytest.raises(
        AssertionError, match=rf"oracle's answer: here\n{name}\[{', '.join(map(str, spot))}\] of .* 1 of"
    ):
        assert_close(actual, expected, "here")


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_found(odd: float) -> None:
    expected = {"lse": Expected(torch.tensor([1.0, 2.0, -math.inf], dtype=torch.float64), 1e9)}
    assert_close({"lse": torch.tensor([1.0, 2.0, -math.inf])}, expected)
    with pytest.raises(AssertionError, match=r"lse\[1\] of \(3,\) is not finite where it should be"):
        assert_close({"lse": torch.tensor([1.0, odd, -math.inf])}, expected)
    with pytest.raises(AssertionError, match=r"lse\[2\] of \(3,\) is not finite where it should be, or finite where"):
        assert_close({"lse": torch.tensor([1.0, 2.0, 0.0])}, expected)


def test_a_wrong_shape_is_found() -> None:
    q, k, v = torch.randn(3, 2, 5, 8).unbind()
    with pytest.raises(AssertionError, match=r"out has shape \(5, 8\) instead of \(2, 5, 8\)"):
        assert_close_to_oracle(torch.zeros(5, 8), q, k, v)


def test_gradients_of_all_operands_by_default() -> None:
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, 5, 8).unbind())
    sinks = torch.randn(2, requires_grad=True)
    out = rg.attention(q, k, v, sinks=sinks, backend="reference")
    dout = torch.randn_like(out)
    grads = dict(zip(("dq", "dk", "dv", "dsinks"), torch.autograd.grad(out, [q, k, v, sinks], dout), strict=True))
    assert_close_to_oracle({"out": out, **grads}, q, k, v, sinks=sinks, dout=dout)
    with pytest.raises(AssertionError, match=r"dsinks\[\d\]"):
        assert_close_to_oracle({**grads, "dsinks": -grads["dsinks"]}, q, k, v, sinks=sinks, dout=dout)

"""Prepared calls: the same bits as the long way, and the long way wherever a key cannot say what a call depends on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import regard as rg
from regard import _ready
from regard.backends.native import library

pytestmark = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")

Operands = tuple[Tensor, Tensor, Tensor]
MASKS = [None, rg.Everything(), rg.Causal(), rg.SlidingWindow(3, 1), rg.Causal() & rg.SlidingWindow(2)]


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of this test found a runner."""
    found: list[bool] = []
    find = _ready.find

    def seen(key: object) -> object:
        runner = find(key)
        found.append(runner is not None)
        return runner

    monkeypatch.setattr(_ready, "find", seen)
    return found


def operands(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> Operands:
    q, k, v = (torch.randn(shape, dtype=dtype).requires_grad_(grad) for _ in range(3))
    return q, k, v


def long_way(q: Tensor, k: Tensor, v: Tensor, mask: rg.Mask | None) -> Tensor:
    return rg.inspect(q, k, v, mask=mask, backend="native").out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_the_second_call_is_prepared_and_gives_the_same_bits(
    mask: rg.Mask | None, dtype: torch.dtype, used: list[bool]
) -> None:
    for _ in range(3):
        ops = operands(2, 3, 13, 8, dtype=dtype)
        assert torch.equal(rg.attention(*ops, mask=mask, backend="native"), long_way(*ops, mask))
    assert used == [False, True, True]


def test_an_empty_list_of_score_changes_is_none_at_all(used: list[bool]) -> None:
    q, k, v = operands(2, 3, 13, 8)
    nothings: list[list[rg.ScoreModification] | tuple[()] | None] = [None, (), []]
    for nothing in nothings:
        rg.attention(q, k, v, score_mod=nothing, backend="native")
    assert used == [False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_those_of_the_long_way(dtype: torch.dtype, used: list[bool]) -> None:
    for _ in range(3):
        ops = operands(2, 3, 13, 8, dtype=dtype, grad=True)
        found, right = rg.attention(*ops, mask=rg.Causal(), backend="native"), long_way(*ops, rg.Causal())
        assert torch.equal(found, right)
        for ours, theirs in zip(*(torch.autograd.grad(x.square().sum(), ops) for x in (found, right)), strict=True):
            assert torch.equal(ours, theirs)
    assert used == [False, True, True]


@pytest.mark.parametrize("length", [13, 1500])
def test_gradients_are_laid_out_like_their_operands(length: int, used: list[bool]) -> None:
    shared = torch.randn(1, 2, 1, 8).expand(1, 2, length, 8)
    swapped = torch.randn(2, 1, length, 2, 8).transpose(2, 3)
    for _ in range(2):
        q, k, v = ops = [x.detach().requires_grad_() for x in (shared, *swapped)]
        grad_out = torch.randn(1, 2, length, 8)
        found, right = rg.attention(q, k, v, mask=rg.Causal()), long_way(q, k, v, rg.Causal())
        ours, theirs = (torch.autograd.grad(x, ops, grad_out) for x in (found, right))
        assert all(map(torch.equal, ours, theirs))
        assert [x.stride() for x in ours[1:]] == [x.stride() for x in ops[1:]]
    assert used == [False, True]


def test_another_number_of_threads_in_the_backward_pass() -> None:
    # Long keys and one head: with two threads the keys are shared out in parts.
    ops = operands(1, 1, 900, 8, grad=True)
    outs = [rg.attention(*ops, mask=rg.Causal()) for _ in range(3)]
    one = torch.autograd.grad(outs[0].square().sum(), ops)
    torch.set_num_threads(2)
    try:
        two = torch.autograd.grad(outs[1].square().sum(), ops)
    finally:
        torch.set_num_threads(1)
    again = torch.autograd.grad(outs[2].square().sum(), ops)
    assert all(map(torch.equal, one, again))
    for x, y in zip(one, two, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_what_checkpointing_recomputes_saves_the_same_tensors() -> None:
    ops = operands(1, 2, 29, 4, grad=True)
    for _ in range(2):  # the second time the call is ready in both passes, the first time only when it is recomputed
        again = [x * 1 for x in ops]
        out = checkpoint(lambda *x: rg.attention(*x, mask=rg.Causal()), *again, use_reentrant=False)
        for x, y in zip(
            torch.autograd.grad(out.sum(), ops),
            torch.autograd.grad(long_way(*ops, rg.Causal()).sum(), ops),
            strict=True,
        ):
            assert torch.equal(x, y)


def test_a_second_derivative_is_refused() -> None:
    q, k, v = operands(1, 2, 7, 4, grad=True)
    rg.attention(q, k, v, backend="native")
    (first,) = torch.autograd.grad(rg.attention(q, k, v, backend="native").sum(), q, create_graph=True)
    with pytest.raises(rg.UnsupportedError, match=r'no second derivative.*backend="reference"'):
        first.sum().backward()


def test_an_operand_changed_before_backward_is_noticed() -> None:
    q, k, v = operands(1, 2, 7, 4, grad=True)
    rg.attention(q, k, v, backend="native")
    k = k.detach().clone()
    out = rg.attention(q, k, v, backend="native")
    k.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_other_strides_masks_scales_and_threads_are_other_calls() -> None:
    ops = operands(2, 3, 13, 8)
    keys = {_ready.key_of(*ops, mask, None, None) for mask in (None, rg.Causal(), rg.SlidingWindow(1))}
    keys |= {_ready.key_of(*ops, None, scale, backend) for scale in (0.5, 0.25) for backend in (None, "native")}
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in ops)
    keys |= {
        _ready.key_of(q, k, v, None, None, None),
        _ready.key_of(*operands(2, 3, 13, 8, grad=True), None, None, None),
    }
    torch.set_num_threads(2)
    try:
        keys.add(_ready.key_of(*ops, None, None, None))
    finally:
        torch.set_num_threads(1)
    assert len(keys) == 10
    assert None not in keys


def test_what_no_key_can_say_goes_the_long_way() -> None:
    q, k, v = operands(2, 3, 13, 8)

    def none(q: Tensor, k: Tensor, v: Tensor, mask: rg.Mask | None = None, scale: float | None = None) -> bool:
        return _ready.key_of(q, k, v, mask, scale, None) is None

    assert none(torch.nn.Parameter(q), k, v)
    assert none(q[0], k, v)
    assert none(q.to("meta"), k, v)
    assert none(q, k, v, mask=rg.Padding(torch.tensor([3, 13])))
    assert none(q, k, v, mask=True)  # type: ignore[arg-type]
    assert none(q, k, v, scale=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert none(q, k, v)
    with torch.autograd.forward_ad.dual_level():
        assert none(q, k, v)
    assert torch.func.vmap(lambda x: torch.tensor(none(x, x, x)).expand(1))(torch.randn(1, 2, 3, 4, 5)).all()
    assert not none(q, k, v)


def test_a_call_that_cannot_be_prepared_stays_checked(used: list[bool]) -> None:
    q, k, v = operands(2, 3, 13, 8)
    rg.attention(q, k, v, backend="native")
    for _ in range(2):
        with pytest.raises(rg.UnsupportedError, match="takes 1 to 256 features"):
            rg.attention(q, k, torch.randn(2, 3, 13, 300), backend="native")
        with pytest.raises(rg.KindError, match="mask= takes a mask"):
            rg.attention(q, k, v, mask=torch.ones(13, 13), backend="native")  # type: ignore[arg-type]
        mask = rg.Dilated(2)
        assert torch.equal(rg.attention(q, k, v, mask=mask, backend="native"), long_way(q, k, v, mask))
    assert True not in used


def test_eight_callers_share_a_prepared_call() -> None:
    inputs = [operands(2, 3, 60, 16) for _ in range(8)]
    rg.attention(*inputs[0], mask=rg.Causal(), backend="native")
    expected = [long_way(*ops, rg.Causal()) for ops in inputs]

    def one(n: int) -> bool:
        calls = (rg.attention(*inputs[n], mask=rg.Causal(), backend="native") for _ in range(50))
        return all(torch.equal(out, expected[n]) for out in calls)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(8)))

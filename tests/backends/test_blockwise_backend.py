"""The blockwise backend's own promises: every visible pair once, bounded tiles, and what only long inputs reach."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import regard as rg
from regard._call import Call, make_call
from regard._dispatch import backend
from regard.backends.base import Result
from regard.backends.blockwise.plan import plan
from regard.backends.blockwise.steps import Gather, Slab
from regard.masks import Mask

LONG = 331

MASKS: dict[str, Mask] = {
    "none": rg.Everything(),
    "causal": rg.Causal(),
    "window": rg.SlidingWindow(40, 7),
    "sink-window": rg.Causal() & (rg.Prefix(3) | rg.SlidingWindow(40)),
    "documents": rg.Causal() & rg.Document.from_lengths([100, 31, 150, 50]),
    "scattered": rg.Document(torch.arange(LONG) % 3),
    "dilated": rg.Causal() & rg.Dilated(5),
    "chunks": rg.Chunked(128),
    "ragged": rg.Padding(torch.tensor([LONG, 17, 0])) & rg.Causal(),
    "per-head": rg.Dense(torch.arange(LONG) % torch.tensor([[[[2]], [[3]], [[5]], [[7]]]]) == 0),
    "nothing": rg.Nothing(),
}


def operands(
    length: int = LONG, features: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 4, length, features), (3, 2, length, features), (3, 2, length, 7))
    q, k, v = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return q, k, v


def run(call: Call, name: str) -> Result:
    return backend(name).run(call)


@pytest.mark.parametrize("name", MASKS)
def test_the_plan_visits_every_visible_pair_once(name: str) -> None:
    call = make_call(*operands(), mask=MASKS[name])
    visits = torch.zeros(3, 4, LONG, LONG, dtype=torch.int64)
    for step in plan(call):
        for chunk in step.chunks:
            at = step.at(call.frame, chunk)
            shape = at.shape
            allowed = step.allowed(call, chunk)
            seen = torch.ones(shape, dtype=torch.bool) if allowed is None else allowed.expand(shape).clone()
            if isinstance(step, Gather):
                for n, item in enumerate(step.items):
                    seen[n, :, LONG - item.row :] = False
            places = tuple(x.expand(shape)[seen] for x in (at.b, at.h, at.i, at.j))
            visits.index_put_(places, torch.ones(1, dtype=torch.int64), accumulate=True)
    assert torch.equal(visits, MASKS[name].over(call.frame).expand_as(visits).to(torch.int64))


def test_short_rows_are_gathered_and_long_ones_are_slabs() -> None:
    q, k, v = operands(2048)
    assert Slab in {type(step) for step in plan(make_call(q, k, v, mask=rg.Causal()))}
    one = (x[:1, :2] for x in (q, k, v))
    window = list(plan(make_call(*one, mask=rg.SlidingWindow(63))))
    assert {type(step) for step in window} == {Gather}
    assert len(window) < 2048 // 128


@pytest.mark.parametrize("name", MASKS)
def test_long_inputs_agree_with_the_reference_in_every_gradient(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in operands())
    sinks = torch.linspace(-1, 1, 4, dtype=torch.float64).requires_grad_()
    call = make_call(q, k, v, mask=MASKS[name], sinks=sinks).with_(wants_lse=True, stats=("entropy", "max_logit"))
    ours, theirs = run(call, "blockwise"), run(call, "reference")
    torch.testing.assert_close(ours.out, theirs.out)
    torch.testing.assert_close(ours.lse, theirs.lse)
    for stat in call.stats:
        torch.testing.assert_close(ours.stats[stat], theirs.stats[stat])
    weights = [torch.randn(3, 4, LONG, generator=torch.Generator().manual_seed(n), dtype=q.dtype) for n in range(3)]

    def gradients(result: Result) -> tuple[Tensor, ...]:
        assert result.lse is not None
        rows = (result.out.sum(-1), result.lse, result.stats["entropy"])
        loss = sum(((x * w).sum() for x, w in zip(rows, weights, strict=True)), torch.zeros((), dtype=q.dtype))
        return torch.autograd.grad(loss, (q, k, v, sinks))

    for got, want in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(got, want)


class Largest(TorchDispatchMode):
    """Remembers the greatest number of elements of any tensor that an operation returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.untyped_storage().nbytes() // x.element_size())
        return out


@pytest.mark.parametrize("mask", [rg.Causal(), rg.SlidingWindow(256), rg.Dilated(64)], ids=repr)
def test_no_tensor_grows_with_the_square_of_the_length(mask: Mask) -> None:
    length = 8192
    q, k, v = (x[:1, :2].float().requires_grad_() for x in operands(length, 16))
    with Largest() as largest:
        out = rg.attention(q, k, v, mask=mask, backend="blockwise")
        torch.autograd.grad(out.sum(), (q, k, v))
    assert largest.elements <= length * length // 16


def test_extreme_scores_are_as_exact_as_the_dense_formula() -> None:
    q, k, v = operands(200)
    exact = rg.attention(q * 1e4, k, v, mask=rg.Causal(), backend="reference")
    low = [x.float() for x in (q * 1e4, k, v)]
    off = {
        name: (rg.attention(*low, mask=rg.Causal(), backend=name).double() - exact).abs().max().item()
        for name in ("blockwise", "reference")
    }
    assert off["blockwise"] <= 3 * off["reference"]


def test_a_second_derivative_is_refused_in_words() -> None:
    q, k, v = (x.requires_grad_() for x in operands(9))
    (first,) = torch.autograd.grad(rg.attention(q, k, v, backend="blockwise").square().sum(), q, create_graph=True)
    with pytest.raises(rg.UnsupportedError, match=r'backend="reference"'):
        first.sum().backward()


def test_the_same_bits_twice() -> None:
    q, k, v = (x.float().requires_grad_() for x in operands(700))
    mask = rg.SlidingWindow(90)

    def once() -> tuple[Tensor, ...]:
        out = rg.attention(q, k, v, mask=mask, backend="blockwise")
        return (out, *torch.autograd.grad(out.sum(), (q, k, v)))

    for a, b in zip(once(), once(), strict=True):
        assert torch.equal(a, b)

"""Every derivative of the reference: backward, double backward, forward mode, and `torch.func`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.testing import assert_close_to_oracle

# torch's own, when forward mode is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def biased(bias: Tensor) -> list[rg.ScoreModification]:
    return [rg.Softcap(3.0), rg.Bias(bias)]


def distant(slopes: Tensor, table: Tensor) -> list[rg.ScoreModification]:
    relative = rg.RelativeBias(2, buckets=8, max_distance=16)
    del relative.table
    relative.table = table  # type: ignore[assignment]  # not a parameter, so that its tangent is kept
    return [rg.Alibi(slopes), relative]


def gated(gate: Tensor) -> list[rg.ScoreModification]:
    return [rg.ScoreMod(lambda s, b, h, q, k: s * gate[h].tanh() + (s * 0.3).sin())]


class Setting(NamedTuple):
    """A mask, score changes made of learned tensors of some shapes, and whether there are sinks."""

    mask: rg.Mask | None = None
    made: Callable[..., list[rg.ScoreModification]] = list
    shapes: tuple[tuple[int, ...], ...] = ()
    sinks: bool = False

    def tensors(self) -> list[Tensor]:
        shapes = [(2, 3, 2), (1, 4, 2), (1, 4, 1), *([(2,)] if self.sinks else []), *self.shapes]
        return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        """out, and lse with 0 for the rows that see nothing."""
        sinks, learned = (rest[0], rest[1:]) if self.sinks else (None, rest)
        mods = self.made(*learned)
        seen = rg.inspect(q, k, v, mask=self.mask, score_mod=mods, sinks=sinks, backend="reference")
        return seen.out, torch.where(seen.lse.isfinite(), seen.lse, 0)


LATE = rg.Causal() & ~rg.Prefix(2)
CASES = {
    "plain": Setting(),
    "causal": Setting(rg.Causal()),
    "sinks": Setting(rg.Causal(), sinks=True),
    "empty rows": Setting(LATE),
    "empty rows with sinks": Setting(LATE, sinks=True),
    "padding": Setting(rg.Padding(torch.tensor([2]))),
    "softcap and bias": Setting(rg.Causal(), biased, ((2, 1, 4),), sinks=True),
    "alibi and relative bias": Setting(rg.SlidingWindow(2, 1), distant, ((2,), (8, 2))),
    "a function": Setting(rg.Causal(), gated, ((2,),), sinks=True),
}


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    assert torch.autograd.gradcheck(CASES[name].attend, CASES[name].tensors(), check_forward_ad=True)


@pytest.mark.parametrize("name", CASES)
def test_gradgradcheck(name: str) -> None:
    assert torch.autograd.gradgradcheck(CASES[name].attend, CASES[name].tensors())


MASKS = [
    rg.Causal(),
    rg.SlidingWindow(2, 1) | rg.Prefix(2),
    rg.Document(torch.tensor([0, 0, 1, 1, 1, 2, 2])),
    rg.Dilated(3),
]


def options(heads: int, mask: rg.Mask) -> dict[str, Any]:
    score_mod = [rg.Softcap(4.0), rg.Alibi.for_heads(heads), rg.ScoreMod(lambda s, b, h, q, k: s - 0.1 * (q - k).abs())]
    return {"mask": mask, "score_mod": score_mod, "sinks": torch.randn(heads), "backend": "reference"}


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_vmap_over_a_batch(mask: rg.Mask) -> None:
    q, k, v = torch.randn(3, 4, 5, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 6)
    arguments = options(4, mask)
    mapped = torch.func.vmap(lambda q, k, v: rg.attention(q, k, v, **arguments))(q, k, v)
    torch.testing.assert_close(mapped, rg.attention(q, k, v, **arguments))


@pytest.mark.parametrize(
    ("each", "given"),
    [
        (torch.arange(12).view(3, 4) // 2, lambda x: {"mask": rg.Document(x)}),
        (torch.arange(3)[:, None] + 1, lambda x: {"mask": rg.Causal() & rg.Padding(x)}),
        (torch.arange(12).view(3, 4), lambda x: {"mask": rg.SlidingWindow(1), "q_positions": x}),
    ],
    ids=["ids", "lengths", "positions"],
)
def test_vmap_over_what_decides_who_sees_whom(each: Tensor, given: Callable[[Tensor], dict[str, Any]]) -> None:
    q = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    mapped = torch.func.vmap(lambda x: rg.attention(q, q, q, **given(x)))(each)
    torch.testing.assert_close(mapped, torch.stack([rg.attention(q, q, q, **given(x)) for x in each]))


def test_vmap_over_queries_alone() -> None:
    q, k, v = torch.randn(6, 2, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 6)
    mapped = torch.func.vmap(lambda q: rg.attention(q, k, v, mask=rg.Causal(), backend="reference"))(q)
    torch.testing.assert_close(mapped, rg.attention(q, k, v, mask=rg.Causal()))


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_functional_gradient(mask: rg.Mask) -> None:
    q, k, v = (x.requires_grad_() for x in (torch.randn(4, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 6)))
    arguments = options(4, mask)
    dout = torch.randn(4, 5, 6)

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (rg.attention(q, k, v, **arguments) * dout).sum()

    found = torch.func.grad(loss, argnums=(0, 1, 2))(q, k, v)
    arguments.pop("backend")
    named = dict(zip(("dq", "dk", "dv"), found, strict=True))
    assert_close_to_oracle(named, q, k, v, dout=dout, **arguments)


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_forward_mode_agrees_with_backward(mask: rg.Mask) -> None:
    """``<g, J t>`` by jvp equals ``<Jᵀ g, t>`` by vjp."""
    q, k, v = torch.randn(4, 5, 8).double(), torch.randn(2, 7, 8).double(), torch.randn(2, 7, 6).double()
    arguments = options(4, mask)
    tangents = tuple(torch.randn_like(x) for x in (q, k, v))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rg.attention(q, k, v, **arguments)

    out, pushed = torch.func.jvp(attend, (q, k, v), tangents)[:2]
    g = torch.randn_like(out)
    pulled = torch.func.vjp(attend, q, k, v)[1](g)
    torch.testing.assert_close((g * pushed).sum(), sum((x * t).sum() for x, t in zip(pulled, tangents, strict=True)))


def test_per_sample_gradients() -> None:
    """vmap of grad: what differential privacy and influence functions ask for."""
    q, k, v = torch.randn(3, 2, 5, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rg.attention(q, k, v, mask=rg.Causal(), backend="reference").square().sum()

    each = torch.func.vmap(torch.func.grad(loss))(q, k, v)
    for b in range(3):
        torch.testing.assert_close(each[b], torch.func.grad(loss)(q[b], k[b], v[b]))


def test_hessian_vector_product() -> None:
    q, k, v = torch.randn(3, 2, 5, 8, dtype=torch.float64).unbind()
    t = torch.randn_like(q)

    def loss(q: Tensor) -> Tensor:
        return rg.attention(q, k, v, mask=rg.Causal(), backend="reference").square().sum()

    product = torch.func.jvp(torch.func.grad(loss), (q,), (t,))[1]
    step = 1e-5
    difference = (torch.func.grad(loss)(q + step * t) - torch.func.grad(loss)(q - step * t)) / (2 * step)
    torch.testing.assert_close(product, difference, rtol=1e-6, atol=1e-8)

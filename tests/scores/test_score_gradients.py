"""The derivative that each score change gives by hand is the one that autograd finds in its definition."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard._coordinates import Coordinates, Frame
from regard.testing.expressions import SCORE_CHANGES

FRAME = Frame.of(2, 3, 5, 7, q_positions=torch.tensor([3, 1, 4, 1, 5]))
TILE = (slice(1, 4), slice(2, 7), slice(0, 2), slice(1, 3))
"""Rows, columns, batch entries and heads of a tile that begins nowhere at 0."""


def drawn() -> list[rg.ScoreModification]:
    return [make(Random(seed), FRAME) for make in SCORE_CHANGES for seed in range(6)]


def places(kind: str) -> Coordinates:
    """A tile as a box, or the same pairs as a list of gathered tiles."""
    box = FRAME.tile(*TILE)
    return box if kind == "box" else Coordinates(box.b, box.h, box.i, box.j, box.q, box.k)


@pytest.mark.parametrize("kind", ["box", "gathered"])
@pytest.mark.parametrize("mod", drawn(), ids=repr)
def test_backward_is_the_derivative_of_modify(mod: rg.ScoreModification, kind: str) -> None:
    at = places(kind)
    s = torch.randn(at.shape, dtype=torch.float64)
    grad = torch.randn(at.shape, dtype=torch.float64)
    wanted = [t for t in mod.tensors() if t.requires_grad]
    sums = {id(t): torch.zeros_like(t, dtype=torch.float64) for t in wanted}
    found = mod.backward(s, grad, at, lambda tensor: sums[id(tensor)])
    leaf = s.clone().requires_grad_()
    out = mod.modify(leaf, at)
    want = torch.autograd.grad(out, [leaf, *wanted], grad, materialize_grads=True)
    torch.testing.assert_close(found, want[0])
    for tensor, own in zip(wanted, want[1:], strict=True):
        low = tensor.dtype == torch.bfloat16
        torch.testing.assert_close(
            sums[id(tensor)], own.double(), rtol=0.05 if low else 1e-5, atol=0.2 if low else 1e-5
        )


@pytest.mark.parametrize("mod", drawn(), ids=repr)
def test_a_tile_is_a_part_of_the_whole(mod: rg.ScoreModification) -> None:
    """Sliced or gathered, a tile gets what the whole gets there."""
    rows, cols, batch, heads = TILE
    s = torch.randn(2, 3, 5, 7)
    whole = mod.modify(s, FRAME.everywhere())[batch, heads, rows, cols]
    for kind in ("box", "gathered"):
        torch.testing.assert_close(mod.modify(s[batch, heads, rows, cols], places(kind)), whole)


def test_a_function_names_the_tensors_it_captures() -> None:
    """A leaf, a leaf behind arithmetic, and one inside a module; not one that needs no gradient."""
    gate, deep, fixed = (torch.randn(3, requires_grad=n < 2) for n in range(3))

    def fn(s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return s * gate[h] + (2 * deep).exp()[h] + fixed[h]

    assert {id(t) for t in rg.ScoreMod(fn).tensors()} == {id(gate), id(deep)}
    layer = nn.Bilinear(1, 1, 1)
    assert set(map(id, rg.ScoreMod(layer).tensors())) == set(map(id, layer.parameters()))
    assert rg.ScoreMod(lambda s, b, h, q, k: s + 1).tensors() == ()


@pytest.mark.parametrize("name", ["reference", "blockwise"])
def test_one_table_in_two_places_gets_the_sum(name: str) -> None:
    """The same score change twice, and a captured tensor that is also a bias."""
    q, k, v = torch.randn(3, 2, 5, 4).unbind()
    bias = torch.randn(5, requires_grad=True)

    def captured(s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return s + bias[k]

    once, other = rg.Bias(bias), rg.ScoreMod(captured)
    out = rg.attention(q, k, v, score_mod=[once, other, once], backend=name)
    dout = torch.randn_like(out)
    (found,) = torch.autograd.grad(out, bias, dout)
    single = torch.zeros(5, requires_grad=True)
    out = rg.attention(q, k, v, score_mod=[rg.Bias(3 * bias.detach()), rg.Bias(single)], backend=name)
    (want,) = torch.autograd.grad(out, single, dout)
    torch.testing.assert_close(found, 3 * want)


@pytest.mark.parametrize("name", ["reference", "blockwise"])
def test_training_a_bias_learns_it(name: str) -> None:
    """A bias that hides all but one key is found again from outputs."""
    q, k, v = torch.zeros(1, 6, 4), torch.zeros(1, 6, 4), torch.randn(1, 6, 4)
    mod = rg.Bias(nn.Parameter(torch.zeros(6)))
    optimiser = torch.optim.Adam([mod.bias], lr=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = (rg.attention(q, k, v, score_mod=mod, backend=name) - v[:, 2:3]).square().mean()
        loss.backward()
        optimiser.step()
    assert int(mod.bias.argmax()) == 2
    assert float(mod.bias.detach().softmax(0)[2]) > 0.9


@pytest.mark.parametrize("name", ["reference", "blockwise"])
def test_a_function_is_tried_only_at_places_and_in_the_dtype_of_the_call(name: str) -> None:
    table = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    mod = rg.ScoreMod(lambda s, b, h, q, k: torch.lerp(s, table[q - 100, k].expand_as(s), 0.5))
    x = torch.ones(1, 5, 2, dtype=torch.float64)
    rg.attention(x[:, :3], x, x, score_mod=mod, q_positions=torch.arange(100, 103), backend=name).sum().backward()
    assert table.grad is not None

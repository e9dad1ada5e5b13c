"""The turn in one pass over memory is the formula, with every derivative, and shared angles are those of the call."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.nn import rotary, turning
from regard.nn.rotary import RotaryEmbedding

LAYOUTS = ["half-split", "interleaved"]


def made(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """``x (2, 3, 5, 8)`` as a module splits it, heads after tokens in memory, and the angles of 6 features."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8, dtype=dtype).transpose(1, 2)
    angle = torch.randn(5, 3, dtype=torch.float64)
    return x, angle.cos().to(dtype), angle.sin().to(dtype)


@pytest.mark.parametrize("half_split", [True, False])
@pytest.mark.parametrize("dim", [6, 8])
def test_it_is_the_formula(dim: int, half_split: bool) -> None:
    x, cos, sin = made()
    cos, sin = (torch.cat([t, t[:, :1]], 1)[:, : dim // 2] for t in (cos, sin))
    got = turning.turned(x, cos, sin, dim, half_split=half_split)
    torch.testing.assert_close(got, turning._by_formula(x, cos, sin, dim, half_split))
    assert got.stride() == x.stride(), "laid out as the input, so that nothing is copied around it"


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's own, in forward mode
@pytest.mark.parametrize("half_split", [True, False])
def test_every_derivative(half_split: bool) -> None:
    x, cos, sin = made(torch.float64)
    x = x.detach().requires_grad_()

    def turn(x: Tensor) -> Tensor:
        return turning.turned(x, cos, sin, 6, half_split=half_split)

    assert torch.autograd.gradcheck(turn, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: turn(x).pow(2), x)
    jacobian = torch.func.jacrev(turn)(x.detach())
    torch.testing.assert_close(jacobian, torch.autograd.functional.jacobian(turn, x.detach()))


def test_low_precision_is_rounded_once() -> None:
    x, cos, sin = made()
    got = turning.turned(x.bfloat16(), cos, sin, 6, half_split=True)
    torch.testing.assert_close(
        got, turning.turned(x.bfloat16().float(), cos, sin, 6, half_split=True).bfloat16(), rtol=0, atol=0
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scaling", [None, rg.nn.YaRN(4.0, 16), rg.nn.DynamicNTK(2.0, 4)], ids=repr)
def test_shared_angles_are_those_of_the_positions(layout: rotary.Layout, scaling: rg.nn.RotaryScaling | None) -> None:
    rope = RotaryEmbedding(8, layout=layout, scaling=scaling)
    q, k = torch.randn(2, 2, 3, 5, 8).unbind()
    for start in (0, 7, 0):
        for got, want in zip(rope.turn_run(q, k, start), rope(q, k, torch.arange(start, start + 5)), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_angles_met_in_inference_mode_can_be_trained_with() -> None:
    rope, x = RotaryEmbedding(8, base=123.0), torch.randn(1, 3, 5, 8)
    with torch.inference_mode():
        rope.turn_run(x, x, 0)
    x.requires_grad_()
    q, k = rope.turn_run(x, x, 0)
    (q * k).sum().backward()
    assert x.grad is not None


def test_a_hook_and_a_subclass_are_heard() -> None:
    class Still(RotaryEmbedding):
        def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            return q, k

    x, seen = torch.randn(1, 3, 5, 8), []
    assert Still(8).turn_run(x, x, 3)[0] is x
    rope = RotaryEmbedding(8)
    rope.register_forward_hook(lambda module, inputs, output: seen.append(inputs[2].tolist()))
    rope.turn_run(x, x, 3)
    assert seen == [[3, 4, 5, 6, 7]]

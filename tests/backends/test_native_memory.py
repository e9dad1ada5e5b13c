"""What the native kernels read and write: nothing beyond their operands, by any strides with a last one of 1."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.native.calls import gradients, hold, operands
from torch import Tensor

import regard as rg

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("q_len", "k_len", "width"), [(1, 1, 5), (13, 13, 5), (97, 97, 5), (1, 13, 16), (3, 197, 16), (40, 197, 48)]
)
def test_reads_nothing_beyond_its_operands(
    variant: str, dtype: torch.dtype, q_len: int, k_len: int, width: int
) -> None:
    """The same bits, whatever stands around every operand: not-a-number here. Few rows read keys where they are."""

    def inside(x: Tensor, around: float) -> Tensor:
        room = torch.full([n + 4 for n in x.shape], around, dtype=dtype)
        view = room[tuple(slice(2, -2) for _ in x.shape)]
        return view.copy_(x).requires_grad_()

    plain = [torch.randn(2, 3, length, width, dtype=dtype) for length in (q_len, k_len, k_len)]
    dout = torch.randn(2, 3, q_len, width, dtype=dtype)
    bias = torch.randn(2, 3, q_len, k_len)
    found = []
    for around in (0.0, torch.nan):
        room = torch.full((2, 3, q_len, k_len + 5), around)
        room[..., 2:-3] = bias
        q, k, v = (inside(x, around) for x in plain)
        mods = [rg.Softcap(5.0), rg.Bias(room[..., 2:-3])]
        found.append(gradients(q, k, v, inside(dout, around).detach(), mask=rg.Causal(), score_mod=mods))
        weights = rg.inspect(q.detach(), k.detach(), v.detach(), backend="native").weights
        found[-1] |= {"received": weights.received(), "entropy": weights.entropy()}
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), f"{variant}: {name} depends on what stands beyond its operands"


def test_offsets_beyond_32_bits(variant: str) -> None:
    """Strides that put the second head's elements beyond 2^31."""
    room = torch.empty(2**31 + 4096, dtype=torch.bfloat16)
    q, k, v = (room.as_strided((2, 5, 8), (2**31, 24, 1), 8 * n).copy_(torch.randn(2, 5, 8)) for n in range(3))
    hold(q.clone(), k.detach(), v.detach(), variant)


STRIDES: dict[str, tuple[int, int, int, int]] = {
    "heads last": (1200, 8, 40, 1),
    "one batch entry": (0, 240, 8, 1),
    "one head": (240, 0, 8, 1),
    "one token": (40, 8, 0, 1),
    "overlapping tokens": (700, 130, 3, 1),
    "rows apart": (9000, 1700, 51, 1),
    "tokens backwards in batch and head": (8, 16, 80, 1),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", STRIDES)
def test_any_strides_with_a_last_one_of_1(variant: str, layout: str, dtype: torch.dtype) -> None:
    """The bits of contiguous operands, of a prepared call and of one with everything else."""
    room = torch.randn(3 * 9000 + 5 * 1700 + 30 * 51, dtype=torch.float32).to(dtype)
    views = [room[n:].as_strided((2, 4, length, 8), STRIDES[layout]) for n, length in enumerate((13, 29, 29))]
    dout = torch.randn(2, 4, 13, 8).to(dtype)
    found = []
    for own in (False, True):
        q, k, v = leaves = [(x.contiguous() if own else x).detach().requires_grad_() for x in views]
        outs = [rg.attention(q, k, v, mask=rg.Causal(), backend="native") for _ in range(2)]
        seen = rg.inspect(q, k, v, mask=rg.Causal(), sinks=torch.ones(4), stats=("entropy",), backend="native")
        loss = (seen.out * dout).float().sum() + seen.stats["entropy"].sum()
        tensors = [*outs, seen.out, seen.lse, seen.weights.received(), *torch.autograd.grad(loss, leaves)]
        found.append([*tensors, *torch.autograd.grad(outs[1], leaves, dout)])
    assert all(map(torch.equal, *found))


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "of a sum": lambda x: x[:1, :1, :1, :1].expand(x.shape),
    "one row for all": lambda x: x[:, :, :1].expand(x.shape),
    "heads last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "features first": lambda x: x.mT.contiguous().mT,
    "every second feature": lambda x: torch.stack([x, x * torch.nan], -1).flatten(-2)[..., ::2],
    "negated when read": lambda x: torch._neg_view(-x),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", GRADIENTS)
def test_gradients_come_in_by_any_strides(variant: str, layout: str, dtype: torch.dtype) -> None:
    leaves = [x.requires_grad_() for x in operands(2, 4, 13, 8, dtype=dtype)]
    q, k, v = leaves
    came = [GRADIENTS[layout](torch.randn(2, 4, 13, 8).to(dtype)), GRADIENTS[layout](torch.randn(2, 4, 13, 1))[..., 0]]
    outs = [rg.attention(q, k, v, mask=rg.Causal(), backend="native") for _ in range(2)]
    seen = rg.inspect(q, k, v, mask=rg.Causal(), sinks=torch.ones(4), stats=("entropy",), backend="native")
    found = []
    for out, lse in (came, [x.clone(memory_format=torch.contiguous_format) for x in came]):
        given = [out, lse, lse]
        found.append(torch.autograd.grad([seen.out, seen.lse, seen.stats["entropy"]], leaves, given, retain_graph=True))
        found[-1] += torch.autograd.grad(outs[1], leaves, out, retain_graph=True)
    assert all(map(torch.equal, *found))
    assert all(bool(x.isfinite().all()) and bool(x.any()) for x in found[0])

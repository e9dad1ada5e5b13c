"""What the native kernels read and write: nothing beyond their operands, by any strides with a last one of 1."""

from __future__ import annotations

import pytest
import torch
from tests.native.calls import gradients, hold, operands
from torch import Tensor

import regard as rg


class TestMemory:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("length", [1, 13, 97])
    def test_reads_nothing_beyond_its_operands(self, variant: str, dtype: torch.dtype, length: int) -> None:
        """The same bits, whatever stands around every operand: not-a-number here."""

        def inside(x: Tensor, around: float) -> Tensor:
            room = torch.full([n + 4 for n in x.shape], around, dtype=dtype)
            view = room[tuple(slice(2, -2) for _ in x.shape)]
            return view.copy_(x).requires_grad_()

        plain = operands(2, 3, length, 5, dtype=dtype)
        dout = torch.randn(2, 3, length, 5, dtype=dtype)
        bias = torch.randn(2, 3, length, length)
        found = []
        for around in (0.0, torch.nan):
            room = torch.full((2, 3, length, length + 5), around)
            room[..., 2:-3] = bias
            q, k, v = (inside(x, around) for x in plain)
            mods = [rg.Softcap(5.0), rg.Bias(room[..., 2:-3])]
            found.append(gradients(q, k, v, inside(dout, around).detach(), mask=rg.Causal(), score_mod=mods))
        for name, value in found[0].items():
            assert torch.equal(value, found[1][name]), f"{variant}: {name} depends on what stands beyond its operands"

    def test_offsets_beyond_32_bits(self, variant: str) -> None:
        """Strides that put the second head's elements beyond 2^31."""
        room = torch.empty(2**31 + 4096, dtype=torch.bfloat16)
        q, k, v = (room.as_strided((2, 5, 8), (2**31, 24, 1), 8 * n).copy_(torch.randn(2, 5, 8)) for n in range(3))
        hold(q.clone(), k.detach(), v.detach(), variant)

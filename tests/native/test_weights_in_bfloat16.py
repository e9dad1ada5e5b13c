"""The weights of bfloat16 operands before they are rounded: a short polynomial would be easily 60 ulp off."""

from __future__ import annotations

import pytest
import torch

import regard as rg
from regard._call import make_call
from regard.backends.native import library, masks
from regard.backends.native.function import forward_and_save
from regard.backends.native.plan import Plan

pytestmark = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")


@pytest.mark.parametrize(("q_len", "spread"), [(5, 1.0), (96, 1.0), (96, 8.0)])
def test_relative_error_is_below_2_to_the_minus_12(variant: str, q_len: int, spread: float) -> None:
    k_len = 96
    q, k = ((spread * torch.randn(1, 2, n, 16)).bfloat16() for n in (q_len, k_len))
    # The values are the unit matrix, so that the output is the weights.
    v = torch.eye(k_len, dtype=torch.bfloat16).expand(1, 2, k_len, k_len)
    call = make_call(q, k, v, mask=rg.Causal())
    plan = Plan(masks.kernel_mask(call.mask, call.frame, 1), (), call.scale, 0.0, None)
    *_, saved = forward_and_save(plan, q, k, v, None)
    exact = rg.inspect(q.double(), k.double(), v.double(), mask=rg.Causal(), backend="reference").out
    visible = exact > 1e-30
    error = ((saved.exact_out - exact) / exact)[visible].abs().max()
    # Units that multiply bfloat16 take the weights rounded to 8 binary digits: half a unit of the last.
    rounded = 2**-8 if variant == "avx512_bf16" else 0
    assert error <= rounded + 2**-12

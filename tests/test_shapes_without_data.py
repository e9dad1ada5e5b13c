"""On the meta device a call has shapes and no numbers, as when a model is laid out before its weights are loaded."""

from __future__ import annotations

import pytest
import torch

import regard as rg


@pytest.mark.parametrize("backend", [None, "torch", "reference"])
def test_attention_on_meta_gives_its_shape(backend: str | None) -> None:
    q = torch.empty(2, 6, 7, 8, device="meta")
    k, v = torch.empty(2, 2, 11, 8, device="meta"), torch.empty(2, 2, 11, 5, device="meta")
    out = rg.attention(q, k, v, mask=rg.Causal(), backend=backend)
    assert out.shape == (2, 6, 7, 5)
    assert out.device.type == "meta"

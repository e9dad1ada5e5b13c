"""Every rung of the ladder, with sizes that no two dims share by accident."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import regard as rg

Build = Callable[..., nn.Module]

D_IN, LENGTH = 5, 11

RUNGS: dict[str, Build] = {
    "simple": lambda **o: rg.nn.SimpleSelfAttention(**o),
    "v1": lambda **o: rg.nn.SelfAttentionV1(D_IN, 3, **o),
    "v2": lambda **o: rg.nn.SelfAttentionV2(D_IN, 3, qkv_bias=True, **o),
    "causal": lambda **o: rg.nn.CausalAttention(D_IN, 3, LENGTH, 0.0, qkv_bias=True, **o),
    "wrapper": lambda **o: rg.nn.MultiHeadAttentionWrapper(D_IN, 3, LENGTH, 0.0, 2, **o),
    "multi_head": lambda **o: rg.nn.MultiHeadAttention(D_IN, 6, LENGTH, 0.0, 2, qkv_bias=True, **o),
    "grouped": lambda **o: rg.nn.MultiHeadAttention(
        D_IN,
        7,
        LENGTH,
        0.0,
        6,
        num_kv_heads=2,
        head_dim=3,
        mask=rg.Causal() & rg.SlidingWindow(4),
        score_mod=[rg.RelativeBias(6), rg.Softcap(5.0)],
        sinks=True,
        out_bias=False,
        **o,
    ),
}


@pytest.fixture(params=RUNGS)
def build(request: pytest.FixtureRequest) -> Build:
    """Makes one rung; keyword arguments go to its constructor."""
    torch.manual_seed(17)
    return RUNGS[request.param]


@pytest.fixture
def tokens() -> torch.Tensor:
    """A batch of 3 sequences of 7 tokens, float64."""
    return torch.randn(3, 7, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(29))

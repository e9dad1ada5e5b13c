"""What regard cannot honour is refused, with the name of the layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

import regard as rg
from regard.adapters.huggingface.attention import attend

Q, K = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 5, 8)
LAYER = r"^LlamaAttention, layer 1, of a 'llama' model: "


@pytest.fixture(scope="module")
def layer() -> torch.nn.Module:
    config = LlamaConfig(vocab_size=9, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4)
    module = LlamaModel(config).layers[1].self_attn
    assert isinstance(module, torch.nn.Module)
    return module


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"block_indices": K}, r"was given block_indices=float32 \(1, 2, 5, 8\), which regard does not know"),
        ({"cache": object(), "odd": 2}, r"was given cache=<object.*, odd=2, which regard does not know"),
        ({"is_causal": True}, "is_causal=True came without a mask"),
        ({"attention_mask": torch.ones(1, 5, dtype=torch.int64)}, r"a float mask that is added: got int64 \(1, 5\)"),
        ({"attention_mask": [True]}, r"takes a tensor as its mask: got \[True\]"),
        ({"attention_mask": torch.ones(1, 1, 3, 4).bool()}, r"Dense must broadcast to .* got \(1, 1, 3, 4\)"),
        ({"dropout": 1.0}, "dropout_p must be at least 0 and below 1"),
        ({"s_aux": torch.zeros(3)}, r"sinks must be \(H,\) = \(4,\)"),
    ],
)
def test_refusals(layer: torch.nn.Module, given: dict[str, Any], message: str) -> None:
    given = {"attention_mask": None} | given
    with pytest.raises(rg.RegardError, match=LAYER + ".*" + message):
        attend(layer, Q, K, K, **given)


def test_an_unknown_argument_of_none_means_nothing(layer: torch.nn.Module) -> None:
    out, weights = attend(layer, Q, K, K, None, block_indices=None, position_ids=torch.arange(3), sliding_window=4)
    assert torch.equal(out, rg.attention(Q, K, K).transpose(1, 2))
    assert weights is None


def test_a_layer_without_a_name_is_refused_by_its_class() -> None:
    with pytest.raises(rg.UnsupportedError, match=r"^Linear: attention was given odd=1"):
        attend(torch.nn.Linear(1, 1), Q, K, K, None, odd=1)


def test_indices_are_the_only_keys_that_are_seen(layer: torch.nn.Module) -> None:
    indices = torch.tensor([[[0, 4], [2, 2], [3, 1]]], dtype=torch.int32)
    allowed = torch.zeros(1, 1, 3, 5, dtype=torch.bool)
    for row, keys in enumerate(indices[0].tolist()):
        allowed[0, 0, row, keys] = True
    out, _ = attend(layer, Q, K, K, None, indices=indices)
    assert torch.equal(out, rg.attention(Q, K, K, mask=rg.Dense(allowed)).transpose(1, 2))

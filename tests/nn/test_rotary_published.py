"""Scalings of rotary frequencies, held to those that transformers computes for published configurations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regard.adapters.llama import rotary_embedding
from regard.nn import RotaryEmbedding

transformers = pytest.importorskip("transformers")

PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 2": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    "Qwen2.5, yarn": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768,
    },
    "gpt-oss, yarn": {
        "rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "original_max_position_embeddings": 4096,
        "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    },
    "DeepSeek, yarn": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 4096,
        "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 0.707,
    },
    "Llama 3.1": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    },
    "Llama 3.2": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    },
}  # fmt: skip
MAX_LENGTH = 8192


def config_of(name: str) -> Any:
    return transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, max_position_embeddings=MAX_LENGTH, rope_parameters=PUBLISHED[name]
    )


def ours(config: Any) -> RotaryEmbedding:
    return rotary_embedding(config.rope_parameters, 128, MAX_LENGTH)


@pytest.mark.parametrize("length", [1, MAX_LENGTH, 3 * MAX_LENGTH])
@pytest.mark.parametrize("name", [name for name, given in PUBLISHED.items() if given["rope_type"] != "default"])
def test_frequencies_and_magnitude_are_transformers(name: str, length: int) -> None:
    config = config_of(name)
    compute = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]]
    expected, magnitude = compute(config, "cpu", seq_len=length)
    rope = ours(config)
    found = rope.frequencies(torch.tensor([0, length - 1]))
    torch.testing.assert_close(found.float(), expected, rtol=2e-6, atol=0)
    assert rope.magnitude == pytest.approx(magnitude)


@pytest.mark.parametrize("name", PUBLISHED)
def test_queries_and_keys_are_turned_as_in_transformers(name: str) -> None:
    config, positions = config_of(name), torch.tensor([0, 1, 7, 100, 1000])
    modeling = transformers.models.llama.modeling_llama
    q, k = torch.randn(2, 3, 5, 128), torch.randn(2, 1, 5, 128)
    cos, sin = modeling.LlamaRotaryEmbedding(config)(q, positions[None])
    expected = modeling.apply_rotary_pos_emb(q, k, cos, sin)
    # transformers computes angles in float32, so that one of 1000 radians is off by up to 6e-5.
    torch.testing.assert_close(ours(config)(q, k, positions), expected, rtol=0, atol=5e-4)

"""Switching models to regard, and back."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from tests.adapters.huggingface.models import CASES, SIZES

import regard as rg
from regard.adapters.huggingface import use, using


def test_use_reaches_every_part() -> None:
    model = CASES["T5"]().model
    use(model)
    assert {part.config._attn_implementation for part in model.modules() if hasattr(part, "config")} == {"regard"}


def test_using_switches_back_even_after_an_error() -> None:
    model = tf.CLIPModel(
        tf.CLIPConfig(
            text_config={**SIZES, "eos_token_id": 2},
            vision_config={
                "hidden_size": 48,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
            },
        )
    )
    model.set_attn_implementation({"": "sdpa", "text_config": "sdpa", "vision_config": "eager"})
    inside = []

    def fail() -> None:
        inside.append(model.vision_model.config._attn_implementation)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), using(model):
        fail()
    assert inside == ["regard"]
    assert model.config._attn_implementation == "sdpa"
    assert model.text_model.config._attn_implementation == "sdpa"
    assert model.vision_model.config._attn_implementation == "eager"


def test_a_part_that_cannot_be_switched_is_named() -> None:
    model = tf.BloomModel(tf.BloomConfig(vocab_size=9, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(rg.UnsupportedError, match=r"BloomModel has parts .*: the model \(BloomModel\)"):
        use(model)
    assert model.config._attn_implementation == "eager"


def test_only_models_of_transformers() -> None:
    with pytest.raises(rg.KindError, match=r"a model of transformers: got <class 'torch.nn.modules.linear.Linear'>"):
        use(torch.nn.Linear(1, 1))

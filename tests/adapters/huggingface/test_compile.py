"""A model on regard inside `torch.compile`: one graph, eager's numbers, with padding, other lengths and gradients."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from tests.adapters.huggingface.models import CASES, WORDS, Case

from regard.adapters.huggingface import using


@lru_cache
def made(name: str) -> Case:
    torch.manual_seed(0)
    return CASES[name]()


@pytest.mark.parametrize("name", ["Llama", "Gemma 2"])
def test_a_compiled_model_is_one_graph_with_eagers_logits_and_gradients(name: str) -> None:
    model = made(name).model
    ids = torch.randint(3, WORDS, (2, 11))
    valid = torch.ones_like(ids)
    valid[1, 7:] = 0
    weight = next(p for key, p in model.named_parameters() if key.endswith("q_proj.weight"))

    def run(forward: Any) -> list[torch.Tensor]:
        short = forward(input_ids=ids[:, :8], use_cache=False).logits
        padded = forward(input_ids=ids, attention_mask=valid, use_cache=False).logits[valid.bool()]
        (gradient,) = torch.autograd.grad(padded.square().mean(), weight)
        return [short, padded, gradient]

    torch._dynamo.reset()
    model.set_attn_implementation("eager")
    want = run(model)
    with using(model):
        got = run(torch.compile(model, backend="aot_eager", fullgraph=True))
    for ours, theirs in zip(got, want, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()

"""transformers' cache over `regard.cache`: the same tokens and logits as with transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.adapters.huggingface.models import CASES, WORDS, Case
from transformers.cache_utils import DynamicSlidingWindowLayer

import regard as rg
from regard.adapters.huggingface import cache
from regard.adapters.huggingface.caches import FullLayer

STEPS = {"max_new_tokens": 30, "min_new_tokens": 30, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(params=["Llama", "Gemma 2"])
def case(request: pytest.FixtureRequest) -> Case:
    made = CASES[request.param]()
    made.model.set_attn_implementation("regard")
    return made


@pytest.mark.parametrize("max_length", [None, 60])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}], ids=str)
@torch.no_grad()
def test_generation(case: Case, max_length: int | None, options: dict[str, int]) -> None:
    assert case.prompt is not None
    want = case.model.generate(**case.prompt, **STEPS | options)
    kept = cache(case.model, max_length)
    got = case.model.generate(**case.prompt, **STEPS | options, past_key_values=kept)
    assert torch.equal(got, want)
    assert kept.get_seq_length() == 23 + 29


def test_layers_with_a_window_keep_transformers_own() -> None:
    kinds = [type(layer) for layer in cache(CASES["Gemma 2"]().model).layers]
    assert kinds == [DynamicSlidingWindowLayer, FullLayer]


@torch.no_grad()
def test_drafted_tokens_are_taken_back() -> None:
    case, ids = CASES["Llama"](), torch.randint(3, WORDS, (2, 12))
    kept: Any = cache(case.model)
    case.model(ids, past_key_values=kept)
    case.model(ids[:, :4], past_key_values=kept)
    kept.crop(-4)
    got = case.model(ids[:, 4:6], past_key_values=kept).logits
    want = case.model(torch.cat([ids, ids[:, 4:6]], 1)).logits[:, -2:]
    assert torch.allclose(got, want, atol=1e-5)
    kept.reset()
    assert kept.get_seq_length() == 0
    assert torch.allclose(case.model(ids, past_key_values=kept).logits, case.model(ids).logits)


@torch.no_grad()
def test_batch_entries_are_repeated_and_selected() -> None:
    layer = FullLayer()
    k, v = torch.randn(2, 2, 1, 5, 4)
    layer.update(k, v)
    layer.batch_repeat_interleave(2)
    layer.batch_select_indices(torch.tensor([0, 3]))
    new_k, new_v = torch.randn(2, 2, 1, 1, 4)
    keys, values = layer.update(new_k, new_v)
    assert torch.equal(keys, torch.cat([k, new_k], 2))
    assert torch.equal(values, torch.cat([v, new_v], 2))
    assert layer.get_seq_length() == 6


def test_what_it_refuses(case: Case) -> None:
    with pytest.raises(rg.ArgumentError, match="max_length must be at least 1: got 0"):
        cache(case.model, 0)
    with pytest.raises(rg.ArgumentError, match="at most max_length=5 tokens"):
        case.model(torch.ones(1, 6, dtype=torch.int64), past_key_values=cache(case.model, 5))
    with pytest.raises(rg.KindError, match="takes a model of transformers"):
        cache(case.model.config)

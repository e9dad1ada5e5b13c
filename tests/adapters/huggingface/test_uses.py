"""Ways in which models are used: packed sequences, static caches, beams, bfloat16, dropout, a mask of one's own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from tests.adapters.huggingface.models import CASES, GENERATORS, WORDS, Case
from torch import Tensor

from regard.adapters.huggingface import using

PACKED = (11, 3, 9)
STEPS = {"max_new_tokens": 24, "min_new_tokens": 24}


@lru_cache
def made(name: str) -> Case:
    torch.manual_seed(0)
    return CASES[name]()


def both(case: Case, **inputs: Any) -> tuple[Tensor, Tensor]:
    case.model.set_attn_implementation("eager")
    with torch.no_grad():
        want = case.model(**inputs).logits
        with using(case.model):
            return case.model(**inputs).logits, want


def close(got: Tensor, want: Tensor, relative: float = 1e-5) -> bool:
    return bool((got - want).abs().max() < relative * want.abs().max())


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma 2", "GPT-OSS", "Llama 4, chunked"])
def test_packed_sequences_do_not_see_each_other(name: str) -> None:
    case = made(name)
    ids = torch.randint(3, WORDS, (2, sum(PACKED)))
    positions = torch.cat([torch.arange(n) for n in PACKED])[None]
    got, want = both(case, input_ids=ids, position_ids=positions, use_cache=False)
    assert close(got, want)
    if name == "GPT-OSS":
        return  # it does not tell transformers the positions, so that its packed sequences do see each other
    with torch.no_grad(), using(case.model):
        alone = case.model(input_ids=ids[:, PACKED[0] : PACKED[0] + PACKED[1]]).logits
    assert close(got[:, PACKED[0] : PACKED[0] + PACKED[1]], alone)


@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "GPT-OSS", "Llama 4, chunked", "T5", "Whisper"])
@pytest.mark.parametrize("given", [{"cache_implementation": "static"}, {"num_beams": 3}, {"use_cache": False}], ids=str)
@torch.no_grad()
def test_generation(name: str, given: dict[str, Any]) -> None:
    case, found = made(name), []
    assert case.prompt is not None
    for implementation in ("eager", "regard"):
        case.model.set_attn_implementation(implementation)
        found.append(case.model.generate(**case.prompt, **case.options | STEPS | given))
    assert torch.equal(*found)


@torch.no_grad()
def test_a_prompt_in_two_parts_is_the_prompt() -> None:
    case = made("Gemma 2")
    ids = torch.randint(3, WORDS, (2, 20))
    with using(case.model):
        whole = case.model(ids).logits
        first = case.model(ids[:, :13], use_cache=True)
        second = case.model(ids[:, 13:], past_key_values=first.past_key_values)
    assert close(torch.cat([first.logits, second.logits], 1), whole)


@pytest.mark.parametrize("name", ["Llama", "BERT", "T5"])
def test_a_mask_of_ones_own(name: str) -> None:
    case = made(name)
    ids = torch.randint(3, WORDS, (2, 12))
    allowed = torch.rand(2, 1, 12, 12) < 0.5
    allowed |= torch.eye(12, dtype=torch.bool)
    own = torch.zeros(2, 1, 12, 12).masked_fill(~allowed, torch.finfo(torch.float32).min)
    inputs = {"input_ids": ids, "attention_mask": own} | ({"decoder_input_ids": ids} if name == "T5" else {})
    if name == "BERT":
        case.model.set_attn_implementation("eager")
        with torch.no_grad():
            want = case.model(**inputs).last_hidden_state
            with using(case.model):
                assert close(case.model(**inputs).last_hidden_state, want)
        return
    assert close(*both(case, **inputs))


@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "GPT-OSS"])
def test_bfloat16(name: str) -> None:
    case = CASES[name]()
    with torch.no_grad():
        exact = case.logits()
        case.model.to(torch.bfloat16)
        eager = case.logits().float()
        with using(case.model):
            got = case.logits().float()
    # As near to float32 as eager attention in bfloat16 is.
    assert (got - exact).norm() < 1.2 * (eager - exact).norm()


def test_dropout_trains_and_repeats() -> None:
    case = CASES["GPT-2"]()
    config = case.model.config
    config.attn_pdrop = 0.5
    for block in case.model.transformer.h:
        block.attn.attn_dropout.p = 0.5
    config.resid_pdrop = config.embd_pdrop = 0.0
    for module in case.model.modules():
        if isinstance(module, torch.nn.Dropout) and module.p == 0.1:
            module.p = 0.0
    case.model.train()
    with using(case.model):

        def run(seed: int) -> Tensor:
            torch.manual_seed(seed)
            return case.logits()

        assert torch.equal(run(1), run(1))
        assert not close(run(1), run(2), 1e-2)
        run(1).sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in case.model.parameters() if p.grad is not None)
        # The mean over many draws of what is linear in the weights is what comes without dropping any.
        layer = case.model.transformer.h[0].attn
        x = torch.randn(1, 5, 48)
        mean = torch.stack([layer(x)[0] for _ in range(500)]).mean(0)
        case.model.eval()
        assert (mean - layer(x)[0]).norm() < 0.2 * layer(x)[0].norm()


@pytest.mark.parametrize("name", ["Llama", "BERT, a decoder"])
def test_gradient_checkpointing(name: str) -> None:
    case = CASES[name]()
    assert name in GENERATORS
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            case.model.activation_checkpointing_enable()
        case.model.train()
        for module in case.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        case.model.zero_grad()
        with using(case.model):
            case.model(**case.inputs, use_cache=False).logits.mean().backward()
        found.append({n: p.grad.clone() for n, p in case.model.named_parameters() if p.grad is not None})
    assert all(torch.allclose(found[0][n], found[1][n], rtol=1e-4, atol=1e-8) for n in found[0])

"""A model with regard inside gives eager's logits, gradients and greedy tokens."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from tests.adapters.huggingface.models import CASES, GENERATORS, Case
from torch import Tensor

RELATIVE = 1e-5


@lru_cache
def made(name: str) -> Case:
    torch.manual_seed(0)
    return CASES[name]()


def off(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest number wanted."""
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits(name: str) -> None:
    case = made(name)
    case.model.set_attn_implementation("eager")
    want = case.logits()
    case.model.set_attn_implementation("regard")
    assert off(case.logits(), want) < RELATIVE


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    case = made(name)

    def gradients() -> dict[str, Tensor]:
        case.model.zero_grad()
        logits = case.logits()
        # A fixed random direction stands for a loss: no gradient is nought by symmetry.
        loss = (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))).mean()
        loss.backward()
        return {name: p.grad.clone() for name, p in case.model.named_parameters() if p.grad is not None}

    case.model.set_attn_implementation("eager")
    want = gradients()
    case.model.set_attn_implementation("regard")
    got = gradients()
    assert got.keys() == want.keys()
    largest = max(float(one.abs().max()) for one in want.values())
    for name, one in want.items():
        # The bias of keys moves all scores of a row alike: what eager has for its gradient is rounding alone.
        scale = largest if float(one.abs().max()) < 1e-6 * largest else float(one.abs().max())
        assert float((got[name] - one).abs().max()) < RELATIVE * scale, name


@pytest.mark.parametrize("name", GENERATORS)
@torch.no_grad()
def test_greedy_tokens(name: str) -> None:
    case, tokens = made(name), []
    assert case.prompt is not None
    for implementation in ("eager", "regard"):
        case.model.set_attn_implementation(implementation)
        tokens.append(case.model.generate(**case.prompt, **case.options))
    assert tokens[1].shape[1] >= 64
    assert torch.equal(*tokens)

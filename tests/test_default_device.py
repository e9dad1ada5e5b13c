"""Tensors on the CPU stay there, whatever device torch makes new tensors on by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import regard as rg

LONG = 300


@pytest.fixture
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


MASKS = {
    "causal": rg.Causal(),
    "window": rg.SlidingWindow(3),
    "scattered": rg.Dilated(2),
    "documents": rg.Document(torch.arange(LONG) // 9),
    "valid keys": rg.Padding.from_valid(torch.arange(LONG)[None] > 4),
    "two intervals": rg.Prefix(5) | rg.SlidingWindow(3),
}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", ["torch", "native", "blockwise", "reference"])
@pytest.mark.parametrize("mask", MASKS)
def test_attention_makes_its_tensors_where_the_operands_are(name: str, mask: str) -> None:
    q = torch.ones(1, 2, LONG, 4, device="cpu", requires_grad=True)
    out = rg.attention(q, q, q, mask=MASKS[mask], backend=name)
    out.sum().backward()
    assert out.device.type == "cpu"


@pytest.mark.usefixtures("elsewhere")
def test_dropout_draws_its_seed_on_the_cpu() -> None:
    q = torch.ones(1, 2, 5, 4, device="cpu")
    torch.manual_seed(3)
    out = rg.attention(q, q, q, dropout_p=0.5)
    torch.set_default_device(None)
    torch.manual_seed(3)
    assert torch.equal(out, rg.attention(q, q, q, dropout_p=0.5))


@pytest.mark.usefixtures("elsewhere")
def test_weights_are_read_where_the_operands_are() -> None:
    q = torch.ones(1, 2, LONG, 4, device="cpu")
    weights = rg.inspect(q, q, q, mask=rg.Causal(), score_mod=rg.ScoreMod(lambda s, b, h, q, k: s + h)).weights
    read = [*weights.stats().values(), *weights.topk(2), weights.pool(3, 4), weights.diagonal(1), weights[0, 1, [3, 4]]]
    assert {x.device.type for x in read} == {"cpu"}

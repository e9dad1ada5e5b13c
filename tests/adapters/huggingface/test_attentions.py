"""``output_attentions=True`` gives eager's attentions, lazily."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.adapters.huggingface.models import CASES, LENGTHS, Case
from torch import Tensor

import regard as rg
from regard.adapters.huggingface import Attentions, output_attentions

KINDS = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")


def both(case: Case, **options: Any) -> Iterator[tuple[str, int, Any, Tensor]]:
    """Kind, layer, regard's attentions and eager's."""
    found = []
    for implementation in ("regard", "eager"):
        case.model.set_attn_implementation(implementation)
        found.append(case.model(**case.inputs, output_attentions=True, **options))
    for kind in KINDS:
        layers = [one.get(kind) or () for one in found]
        assert len(layers[0]) == len(layers[1])
        yield from ((kind, n, *pair) for n, pair in enumerate(zip(*layers, strict=True)))


@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "GPT-OSS", "GPT-2", "BERT", "ModernBERT", "T5", "Whisper", "ViT"])
@torch.no_grad()
def test_they_are_eagers(name: str) -> None:
    case, seen = CASES[name](), 0
    for kind, _, got, want in both(case):
        assert isinstance(got, Attentions)
        assert got.shape == want.shape
        rows = [slice(None)] * len(want)
        if case.tokens is not None and kind != "encoder_attentions":
            # A token of padding may see nothing, which eager spreads over all keys.
            rows = [slice(None) if name == "ModernBERT" else slice(0, n) for n in LENGTHS]
        for b, inside in enumerate(rows):
            if name == "ModernBERT":
                inside = slice(0, LENGTHS[b])
            assert torch.allclose(got[b, :, inside], want[b, :, inside], atol=2e-6), (kind, b)
        seen += 1
    assert seen >= 2


@pytest.fixture
def weights() -> Any:
    case = CASES["Llama"]()
    with torch.no_grad():
        return next(both(case))[2]


def test_they_quack(weights: Any) -> None:
    dense: Any = weights.dense()
    assert (weights.size(), weights.size(-1), weights.dim(), len(weights)) == (dense.shape, 23, 4, 3)
    assert (weights.dtype, weights.device, weights.numel()) == (torch.float32, dense.device, dense.numel())
    for got, want in (
        (weights[1, 2, 3:5], dense[1, 2, 3:5]),
        (torch.stack([weights, weights]).mean(2), torch.stack([dense, dense]).mean(2)),
        (torch.einsum("bhqk->bhk", weights), dense.sum(2)),
        (weights.mean(dim=1), dense.mean(dim=1)),
        (weights.squeeze().cpu().float(), dense.squeeze()),
        (weights + weights, dense + dense),
        (2 * weights - 1, 2 * dense - 1),
        (weights @ dense, dense @ dense),
        (torch.stack(list(weights)), dense),
        (torch.from_numpy(np.asarray(weights)), dense),
        (torch.from_numpy(weights.numpy()), dense),
        (torch.from_numpy(np.mean(np.array(weights), axis=1)), dense.mean(1)),
    ):
        assert torch.allclose(got, want)
    assert bool((weights == dense).all())
    assert isinstance(weights, rg.AttentionWeights)
    assert torch.equal(weights.max(), rg.AttentionWeights.max(weights))


def test_what_is_no_tensors_either_is_an_attribute_error(weights: Attentions) -> None:
    assert not hasattr(weights, "odd")
    with pytest.raises(AttributeError, match="no attribute 'odd', and neither have tensors"):
        _ = weights.odd


def test_what_would_not_fit_is_refused() -> None:
    q, k = torch.randn(1, 1, 5000, 4), torch.randn(1, 1, 5000, 4)
    long: Any = Attentions.of(rg.inspect(q, k, k).weights)
    assert long[0, 0, 4999].shape == (5000,)
    for read in (lambda: long.mean(), lambda: torch.sum(long), lambda: long + 1, lambda: np.asarray(long)):
        with pytest.raises(rg.ArgumentError, match=r"the limit is 67\.1 MB"):
            read()


def test_they_carry_gradients() -> None:
    case, found = CASES["Llama"](), []
    for implementation in ("regard", "eager"):
        case.model.zero_grad()
        case.model.set_attn_implementation(implementation)
        attentions = case.model(**case.inputs, output_attentions=True).attentions
        attentions[1][0, :, 9, :4].pow(2).sum().backward()
        grad = case.model.model.layers[0].self_attn.q_proj.weight.grad
        assert grad is not None
        found.append(grad)
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6 * float(found[1].abs().max()))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@torch.no_grad()
def test_generation_keeps_every_steps(cache: str) -> None:
    case, found = CASES["Gemma 2"](), []
    assert case.prompt is not None
    options: dict[str, Any] = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    for implementation in ("regard", "eager"):
        case.model.set_attn_implementation(implementation)
        found.append(
            case.model.generate(
                **case.prompt,
                **options,
                cache_implementation=cache,
                output_attentions=True,
                return_dict_in_generate=True,
            )
        )
    assert torch.equal(found[0].sequences, found[1].sequences)
    assert len(found[0].attentions) == 9
    for step, (got, want) in enumerate(zip(found[0].attentions, found[1].attentions, strict=True)):
        for mine, eagers in zip(got, want, strict=True):
            assert isinstance(mine, Attentions if step == 0 else Tensor)
            assert mine.shape == eagers.shape
            tokens = [-1] if step else [-1, -5]
            assert torch.allclose(mine[:, :, tokens], eagers[:, :, tokens], atol=2e-6)


@torch.no_grad()
def test_the_configurations_switch_works_in_a_block() -> None:
    case = CASES["T5"]()
    case.model.set_attn_implementation("regard")
    with output_attentions(case.model):
        inside = case.model(**case.inputs)
    assert len(inside.encoder_attentions) == len(inside.cross_attentions) == 2
    assert isinstance(inside.cross_attentions[0], Attentions)
    assert case.model(**case.inputs).get("cross_attentions") is None
    with pytest.raises(rg.KindError, match=r"takes a model of transformers: got <class 'torch"):
        output_attentions(torch.nn.Linear(1, 1)).__enter__()

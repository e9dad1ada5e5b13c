"""An operand changed in place after the call is noticed before it gives wrong weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import regard as rg

READS: list[Callable[[rg.AttentionWeights], object]] = [
    lambda w: w[0, 0],
    lambda w: w.dense(),
    lambda w: w.entropy(),
    lambda w: w.max(),
    lambda w: w.max_logit(),
    lambda w: w.received(),
    lambda w: w.topk(1),
    lambda w: w.diagonal(),
    lambda w: w.segments([0] * 5),
    lambda w: w.pool(1, 1),
    lambda w: w.stats(),
]


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    made = {name: torch.randn(2, 3, 5, 4, generator=generator) for name in ("q", "k", "v")}
    made["allowed"] = torch.rand(5, 5, generator=generator) < 0.7
    made["lengths"] = torch.tensor([4, 5])
    made["bias"] = torch.randn(5, 5, generator=generator)
    made["sinks"] = torch.zeros(3)
    made["q_positions"] = torch.arange(5)
    made["k_positions"] = torch.arange(5)
    return made


def look(x: dict[str, Tensor], backend: str | None = None) -> rg.Inspection:
    mask = rg.Dense(x["allowed"]) & rg.Padding(x["lengths"])
    return rg.inspect(
        x["q"],
        x["k"],
        x["v"],
        mask=mask,
        score_mod=rg.Bias(x["bias"]),
        sinks=x["sinks"],
        q_positions=x["q_positions"],
        k_positions=x["k_positions"],
        backend=backend,
    )


@pytest.mark.parametrize("read", READS)
def test_every_way_of_reading_looks_first(read: Callable[[rg.AttentionWeights], object]) -> None:
    x = tensors()
    weights = look(x).weights
    read(weights)
    x["k"][0, 0, 0, 0] = 1.0
    with pytest.raises(rg.StaleError, match=r"and k was changed in place after the call.*tensor.clone\(\)"):
        read(weights)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("q", "q"),
        ("k", "k"),
        ("allowed", "a tensor of the mask Dense.* & Padding.*"),
        ("lengths", "a tensor of the mask Dense.* & Padding.*"),
        ("bias", "a tensor of Bias.*"),
        ("sinks", "sinks"),
        ("q_positions", "q_positions"),
        ("k_positions", "k_positions"),
    ],
)
def test_what_was_changed_is_named(name: str, words: str, backend: str) -> None:
    x = tensors()
    weights = look(x, backend).weights
    x[name].copy_(x[name].clone())
    with pytest.raises(rg.StaleError, match=f"are read, and {words} was changed in place"):
        weights.max()


def test_several_changes_and_changes_through_a_view_are_named() -> None:
    x = tensors()
    looked = look(x)
    x["q"][0].zero_()
    looked.lse.add_(1)
    with pytest.raises(rg.StaleError, match="q and lse were changed in place"):
        looked.weights.max()


def test_values_do_not_matter_and_are_let_go() -> None:
    x = tensors()
    weights = look(x).weights
    before = weights.dense()
    x["v"].fill_(torch.nan)
    assert torch.equal(weights.dense(), before)
    assert weights.stats()["entropy"].isfinite().all()


def test_inference_mode_has_no_counters_and_still_works() -> None:
    with torch.inference_mode():
        x = tensors()
        weights = look(x).weights
    torch.testing.assert_close(weights.dense(), look(tensors()).weights.dense())
    assert weights.topk(2).values.shape == (2, 3, 5, 2)

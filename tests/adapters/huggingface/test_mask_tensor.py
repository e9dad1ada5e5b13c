"""A mask in the clothes of a bool tensor."""

from __future__ import annotations

import copy

import pytest
import torch

import regard as rg
from regard.adapters.huggingface.attention import attend
from regard.adapters.huggingface.mask_tensor import MaskTensor
from regard.adapters.huggingface.masks import Geometry

ALLOWED = torch.ones(3, 5, dtype=torch.bool).tril(2).expand(2, 1, 3, 5)
EAGER = torch.zeros(2, 1, 3, 5).masked_fill(~ALLOWED, torch.finfo(torch.float32).min)


@pytest.fixture
def mask() -> MaskTensor:
    return MaskTensor.of(rg.Causal(), Geometry(2, 3, 5, 2, 0, torch.device("cpu")))


def test_it_looks_like_eagers_mask_without_being_made(mask: MaskTensor) -> None:
    assert (mask.shape, mask.ndim, mask.dtype, mask.device.type) == ((2, 1, 3, 5), 4, torch.float32, "cpu")
    assert (mask.size(-1), mask.dim(), len(mask), mask.numel()) == (5, 4, 2, 30)
    assert mask.to("cpu") is mask
    assert mask.contiguous().detach() is mask
    assert mask.to(torch.float32) is mask
    assert mask[:, :, :, :5] is mask
    assert mask._made is None
    assert repr(mask) == "MaskTensor(Causal(), shape=(2, 1, 3, 5))"


def test_what_is_computed_with_it_is_computed_with_the_tensor(mask: MaskTensor) -> None:
    scores = torch.randn(2, 4, 3, 5)
    assert torch.equal(scores + mask, scores + EAGER)
    assert torch.equal(mask + scores, scores + EAGER)
    assert torch.equal(scores.masked_fill(mask < 0, -1), scores.masked_fill(~ALLOWED, -1))
    assert torch.equal(mask[:, :, 1:, :4], EAGER[:, :, 1:, :4])
    assert torch.equal(torch.cat([mask, mask], -1), torch.cat([EAGER, EAGER], -1))
    assert torch.equal(mask.to(torch.float64), EAGER.double())
    assert type(copy.deepcopy(mask.clone())) is torch.Tensor
    assert mask.mask == rg.Causal()


def test_what_is_written_into_it_counts(mask: MaskTensor) -> None:
    q = torch.randn(2, 4, 3, 8)
    k = torch.randn(2, 4, 5, 8)
    mask[:, :, :, 2] = 1.5
    changed = EAGER.clone()
    changed[:, :, :, 2] = 1.5
    assert mask.mask is None
    got, want = (attend(torch.nn.Identity(), q, k, k, given)[0] for given in (mask, changed))
    assert torch.equal(got, want)


def test_what_is_written_into_a_view_counts(mask: MaskTensor) -> None:
    mask[:, :, :, 2:].fill_(1.5)
    assert mask.mask is None
    assert bool((mask.made()[..., 2:] == 1.5).all())

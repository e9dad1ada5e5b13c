"""A settled mask is prepared for the kernels once, and nobody can change it any more."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.backends.native import masks


def tokens(length: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 2, 4, length, 8, generator=torch.Generator().manual_seed(0)).unbind()
    return q, k, v


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[rg.Mask]:
    """The masks that were put into the kernels' form."""
    seen: list[rg.Mask] = []
    original = masks._made

    def counted(mask: rg.Mask, *rest: object) -> masks.KernelMask:
        seen.append(mask)
        return original(mask, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(masks, "_made", counted)
    return seen


def test_it_is_prepared_once_for_each_size(made: list[rg.Mask]) -> None:
    mask = (rg.Causal() & rg.Padding(torch.tensor([5, 3]))).settle()
    q, k, v = tokens()
    expected = rg.attention(q, k, v, mask=mask, backend="reference")
    for _ in range(3):
        torch.testing.assert_close(rg.attention(q, k, v, mask=mask, backend="native"), expected)
    assert len(made) == 1
    rg.attention(q[:, :, :2], k, v, mask=mask, backend="native")
    assert len(made) == 2


def test_another_mask_is_prepared_every_time(made: list[rg.Mask]) -> None:
    lengths = torch.tensor([5, 3])
    mask = rg.Padding(lengths)
    q, k, v = tokens()
    rg.attention(q, k, v, mask=mask, backend="native")
    lengths.numpy()[1] = 5
    got = rg.attention(q, k, v, mask=mask, backend="native")
    torch.testing.assert_close(got, rg.attention(q, k, v, backend="reference"))
    assert len(made) == 2


@pytest.mark.parametrize("inference", [False, True])
def test_it_holds_copies(inference: bool) -> None:
    with torch.inference_mode(inference):
        lengths = torch.tensor([5, 3])
        mask = rg.Padding(lengths).settle()
        before = mask.dense(5, 5)
        lengths.fill_(1)
        assert torch.equal(mask.dense(5, 5), before)
    assert mask.settled
    assert not mask.tensors()[0].is_inference()
    assert not mask.to("cpu").settled


def test_it_is_forgotten_with_the_mask() -> None:
    mask = rg.Padding(torch.tensor([5, 3])).settle()
    q, k, v = tokens()
    rg.attention(q, k, v, mask=mask, backend="native")
    count = len(masks._kept)
    del mask
    gc.collect()
    assert len(masks._kept) == count - 1

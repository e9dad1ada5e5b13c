"""The memory of large gradients and of packed keys: used again when it is free, never before, and not without end."""

from __future__ import annotations

import gc
import resource

import pytest
import torch

import regard as rg
from regard.backends.native import library, recycling

_LARGE = 1 << 23


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(recycling, "kept", recycling._Kept())


def test_freed_memory_is_used_again_as_zeros() -> None:
    first = recycling.zeros(2, _LARGE)
    address = first.data_ptr()
    first.fill_(3)
    del first
    again = recycling.zeros(2, _LARGE)
    assert again.data_ptr() == address
    assert again.shape == (2, _LARGE)
    assert not again.any()


def test_memory_that_a_view_still_sees_is_not_used_again() -> None:
    first = recycling.zeros(2, _LARGE)
    row = first[1].fill_(3)
    del first
    other = recycling.zeros(2, _LARGE)
    other.fill_(5)
    assert (row == 3).all()


def test_another_size_gets_memory_of_its_own() -> None:
    address = recycling.zeros(_LARGE).data_ptr()
    assert recycling.zeros(_LARGE + 1).numel() == _LARGE + 1
    assert recycling.zeros(_LARGE).data_ptr() == address


def test_little_is_left_to_the_c_library() -> None:
    assert not recycling.zeros(10, 10).any()
    assert recycling.kept.blocks == {}


def test_no_more_is_kept_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycling, "_MOST", 4 * 3 * _LARGE)
    many = [recycling.zeros(_LARGE) for _ in range(5)]
    del many
    assert 1 <= sum(map(len, recycling.kept.blocks.values())) <= 3


@pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")
def test_a_gradient_is_right_in_used_memory() -> None:
    length = 2897
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, length, 4, generator=generator)
    table = torch.randn(length, length, generator=generator).requires_grad_()

    def gradient(backend: str) -> torch.Tensor:
        out = rg.attention(q, k, v, mask=rg.Causal(), score_mod=rg.Bias(table), backend=backend)
        return torch.autograd.grad(out.square().sum(), table)[0]

    expected = gradient("blockwise")
    first = gradient("native")
    address = first.data_ptr()
    first.fill_(torch.nan)
    del first
    second = gradient("native")
    assert second.data_ptr() == address
    torch.testing.assert_close(second, expected)


@pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")
def test_what_the_kernels_pack_goes_into_the_memory_of_the_call_before() -> None:
    q = torch.randn(1, 1, 400, 32)
    k, v = torch.randn(2, 1, 1, 1 << 17, 32)

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        rg.attention(q, k, v, backend="native")
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    new_pages()
    packed = 4 * k.numel() * 2
    assert new_pages() < packed / resource.getpagesize() / 4

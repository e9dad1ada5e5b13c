"""The four asserts pass on right modules and catch planted faults, by the token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.testing import assert_batch_invariant, assert_cache_consistent, assert_causal, assert_padding_invariant


class Toy(nn.Module):
    """One attention head over its own input; ``shift`` plants an off-by-one in the causal mask."""

    def __init__(self, mask: rg.Mask | None = None, dropout_p: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.project = nn.Linear(5, 15)
        self.mask = rg.Causal() if mask is None else mask
        self.dropout_p = dropout_p

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(y[:, None] for y in self.project(x).chunk(3, -1))

    def forward(self, x: Tensor, mask: rg.Mask | None = None) -> Tensor:
        q, k, v = self.heads(x)
        mask = self.mask if mask is None else self.mask & mask
        return rg.attention(q, k, v, mask=mask, dropout_p=self.dropout_p if self.training else 0.0)[:, 0]


class Cached(Toy):
    """`Toy` with a cache that is a list of the keys and values so far; ``forgets`` drops one token when it decodes."""

    def __init__(self, *, forgets: bool = False) -> None:
        super().__init__()
        self.forgets = forgets

    def forward(self, x: Tensor, cache: list[tuple[Tensor, ...]] | None = None, **_: Any) -> Tensor:  # type: ignore[override]
        q, k, v = self.heads(x)
        if cache is not None:
            if cache:
                past = [y[:, :, 1:] if self.forgets and y.shape[2] > 3 else y for y in cache.pop()]
                k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            cache.append((k, v))
        return rg.attention(q, k, v, mask=rg.Causal())[:, 0]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 7, 5)


@pytest.mark.parametrize("assertion", [assert_causal, assert_batch_invariant])
@pytest.mark.parametrize("shape", [(1, 1, 5), (7, 5)])
def test_an_input_that_proves_nothing_is_refused(assertion: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(rg.ShapeError, match="or any module would pass: got float32"):
        assertion(Toy(), torch.zeros(shape))


def test_a_causal_module_passes(x: Tensor) -> None:
    assert_causal(Toy(), x)
    assert_causal(Toy(rg.SlidingWindow(2)), x)


def test_a_mask_off_by_one_is_caught_at_its_first_token(x: Tensor) -> None:
    with pytest.raises(
        AssertionError, match=r"token 5 saw token 6 of its future\. Changing the tokens from 6 on .* in batch entry"
    ):
        assert_causal(Toy(rg.SlidingWindow(None, 1)), x)


def test_one_leaking_token_is_caught(x: Tensor) -> None:
    allowed = torch.ones(7, 7, dtype=torch.bool).tril()
    allowed[2, 6] = True
    with pytest.raises(AssertionError, match="token 2 saw token 6 of its future"):
        assert_causal(Toy(rg.Dense(allowed)), x)


def test_softmax_before_the_mask_is_caught(x: Tensor) -> None:
    """A softmax whose denominator counts hidden keys lets the future through."""

    def twice(x: Tensor) -> Tensor:
        weights = (x @ x.mT).softmax(-1).tril()
        return weights @ x

    with pytest.raises(AssertionError, match="not causal: token 0 saw token 1 of its future"):
        assert_causal(twice, x[:, :2])


def test_nan_is_no_answer(x: Tensor) -> None:
    def poisoned(x: Tensor) -> Tensor:
        return torch.where(x.sum((1, 2), keepdim=True) == x_sum, x, torch.nan)

    x_sum = x.sum((1, 2), keepdim=True)
    with pytest.raises(AssertionError, match=r"of its future.*by inf"):
        assert_causal(poisoned, x)


def test_modules_are_evaluated_and_left_as_they_were(x: Tensor) -> None:
    module = nn.Sequential(Toy(dropout_p=0.5), nn.Dropout(0.5))
    module[1].eval()
    assert_causal(module, x)
    assert module.training
    assert module[0].training
    assert not module[1].training


def test_a_module_of_another_shape_is_refused(x: Tensor) -> None:
    with pytest.raises(AssertionError, match=r"must map \(B, L, d\) to \(B, L, …\): got \(3, 7, 5\) to \(3, 5\)"):
        assert_causal(lambda x: x.mean(1), x)


def test_a_module_that_masks_padding_passes(x: Tensor) -> None:
    assert_padding_invariant(Toy(rg.Everything()), x, torch.tensor([7, 4, 1]))


def test_padding_that_is_not_masked_is_caught(x: Tensor) -> None:
    def wrong(lengths: Tensor) -> dict[str, Any]:
        return {"mask": rg.Padding(lengths + 1)}

    with pytest.raises(
        AssertionError, match="changing the padding from token 4 on changed the output of token 0 in batch"
    ):
        assert_padding_invariant(Toy(rg.Everything()), x, torch.tensor([7, 4, 1]), masked=wrong)


def test_a_module_that_counts_padding_is_caught(x: Tensor) -> None:
    """Content does not leak, the number of padded tokens does."""

    def mean(x: Tensor, lengths: Tensor) -> Tensor:
        real = torch.arange(x.shape[1]) < lengths[:, None]
        return torch.where(real[..., None], x, 0).mean(1, keepdim=True).expand_as(x)

    with pytest.raises(AssertionError, match=r"of batch entry 1 differs by .* from the same 4 tokens without padding"):
        assert_padding_invariant(mean, x, torch.tensor([7, 4, 1]), masked=lambda lengths: {"lengths": lengths})


def test_a_batched_module_passes(x: Tensor) -> None:
    assert_batch_invariant(Toy(), x)


def test_entries_that_mix_are_caught(x: Tensor) -> None:
    with pytest.raises(AssertionError, match="batch entries mix: token 0 of batch entry 0 differs"):
        assert_batch_invariant(lambda x: x - x.mean(0), x)


def test_a_cache_that_remembers_passes(x: Tensor) -> None:
    assert_cache_consistent(Cached(), x, list)


def test_a_cache_that_forgets_is_caught(x: Tensor) -> None:
    with pytest.raises(AssertionError, match=r"fed 1 at a time, token 4 of batch entry . differs by .* all 7 tokens"):
        assert_cache_consistent(Cached(forgets=True), x, list)


def test_a_cache_that_fails_only_in_chunks_is_caught(x: Tensor) -> None:
    """Chunked prefill that lets a chunk see only itself and the first token."""

    class Chunkwise(Cached):
        def forward(self, x: Tensor, cache: Any = None, **_: Any) -> Tensor:  # type: ignore[override]
            if cache is not None and x.shape[1] > 1:
                cache = None
            return super().forward(x, cache=cache)

    with pytest.raises(AssertionError, match="fed 3 at a time, token 3"):
        assert_cache_consistent(Chunkwise(), x, list)

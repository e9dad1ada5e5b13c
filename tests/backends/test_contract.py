"""The contract on masks, heads, shapes and inputs, on every backend: what users of other libraries suffer from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard._dispatch import backend_names
from regard.testing.cases import random_operands
from regard.testing.tolerance import assert_close_to_oracle

every = pytest.mark.parametrize("name", backend_names())


def weights(name: str, q_len: int, k_len: int, **arguments: Any) -> Tensor:
    """The weights ``(q_len, k_len)`` for scores of 0, read off the output by one-hot values."""
    q, k = torch.zeros(1, 1, q_len, 4), torch.zeros(1, 1, k_len, 4)
    return rg.attention(q, k, torch.eye(k_len)[None, None], backend=name, **arguments)[0, 0]


@every
def test_true_means_may_attend(name: str) -> None:
    allowed = torch.tensor([[True, False, False], [False, True, True]])
    want = torch.tensor([[1, 0, 0], [0, 0.5, 0.5]])
    torch.testing.assert_close(weights(name, 2, 3, mask=rg.Dense(allowed)), want)


@every
def test_the_last_of_few_queries_stands_at_the_last_key(name: str) -> None:
    want = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]) / torch.tensor([[4.0], [5.0]])
    torch.testing.assert_close(weights(name, 2, 5, mask=rg.Causal()), want)


@every
def test_the_last_of_many_queries_stands_at_the_last_key(name: str) -> None:
    want = torch.tensor([[0, 0], [0, 0], [0, 0], [1, 0], [0.5, 0.5]])
    torch.testing.assert_close(weights(name, 5, 2, mask=rg.Causal()), want)


@every
def test_positions_place_the_queries(name: str) -> None:
    """A decoding step over rotated keys, as a ring buffer leaves them."""
    positions = {"q_positions": torch.tensor([6]), "k_positions": torch.tensor([8, 5, 6, 7])}
    want = torch.tensor([[0, 0.5, 0.5, 0]])
    torch.testing.assert_close(weights(name, 1, 4, mask=rg.Causal(), **positions), want)


@every
@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 0), (2, 1), (0, 3), (None, 1), (1, None), (None, None)])
def test_a_window_counts_other_keys_and_both_its_ends(name: str, left: int | None, right: int | None) -> None:
    got = weights(name, 7, 7, mask=rg.SlidingWindow(left, right)) > 0
    for q in range(7):
        first = 0 if left is None else max(q - left, 0)
        last = 6 if right is None else min(q + right, 6)
        assert got[q].nonzero().flatten().tolist() == list(range(first, last + 1))


@every
def test_a_window_of_width_w_is_w_keys_wide(name: str) -> None:
    assert (weights(name, 9, 9, mask=rg.SlidingWindow.of_width(4)) > 0).sum(-1).tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4]


@every
def test_a_mask_is_anded_with_causal_and_not_dropped(name: str) -> None:
    """Other paths ignore one of the two."""
    padding = rg.Padding.from_valid(torch.tensor([[False, True, True, True]]))
    want = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(weights(name, 4, 4, mask=rg.Causal() & padding), want)


@every
def test_query_head_h_reads_key_head_h_over_group(name: str) -> None:
    """Blocks of query heads share a key head; they are not dealt out in turn."""
    q, k = torch.randn(1, 6, 3, 4), torch.randn(1, 2, 5, 4)
    v = torch.tensor([10.0, 20.0])[None, :, None, None].expand(1, 2, 5, 1)
    out = rg.attention(q, k, v, backend=name)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([10.0, 10, 10, 20, 20, 20]))


@every
def test_masks_count_query_heads(name: str) -> None:
    q, k, v = random_operands(heads=6, kv_heads=2)
    mask = rg.Dense(torch.rand(6, 7, 11) > 0.5)
    assert_close_to_oracle(rg.attention(q, k, v, mask=mask, backend=name), q, k, v, mask=mask)


@every
def test_ranks_mix_and_leading_dims_broadcast(name: str) -> None:
    q, k, v = torch.randn(3, 1, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(7, 6)[None].expand(2, 7, 6)
    out = rg.attention(q, k, v, mask=rg.Causal(), backend=name)
    assert out.shape == (3, 2, 4, 5, 6)
    whole = rg.attention(
        q.expand(3, 2, 4, 5, 8).reshape(6, 4, 5, 8),
        k.expand(3, 2, 2, 7, 8).reshape(6, 2, 7, 8),
        v.expand(6, 2, 7, 6),
        mask=rg.Causal(),
        backend=name,
    )
    torch.testing.assert_close(out.flatten(0, 1), whole)


@every
@pytest.mark.parametrize("dims", [2, 3])
def test_two_and_three_dims_come_back_as_many(name: str, dims: int) -> None:
    q, k, v = (x[0] if dims == 3 else x[0, 0] for x in random_operands())
    out = rg.attention(q, k, v, backend=name)
    assert out.shape == ((2, 7, 3) if dims == 3 else (7, 3))
    assert_close_to_oracle(out, q, k, v)


@every
def test_batches_flatten_row_major_for_masks(name: str) -> None:
    q, k, v = torch.randn(2, 3, 1, 4, 8), torch.randn(2, 3, 1, 5, 8), torch.randn(2, 3, 1, 5, 8)
    lengths = torch.tensor([1, 2, 3, 4, 5, 0])
    out = rg.attention(q, k, v, mask=rg.Padding(lengths), backend=name).flatten(0, 1)
    for b, n in enumerate(lengths.tolist()):
        one = rg.attention(
            q.flatten(0, 1)[b], k.flatten(0, 1)[b, :, :n], v.flatten(0, 1)[b, :, :n], backend="reference"
        )
        torch.testing.assert_close(out[b], one)


@every
@pytest.mark.parametrize("longer", ["k", "v"])
def test_keys_and_values_of_different_length_are_refused(name: str, longer: str) -> None:
    """Elsewhere this reads past the end of a buffer, or drops what is too much."""
    q, k, v = random_operands()
    k, v = (k, v[:, :, :-2]) if longer == "k" else (k[:, :, :-2], v)
    with pytest.raises(rg.ShapeError, match="k and v must have the same number of tokens"):
        rg.attention(q, k, v, backend=name)


@every
def test_nothing_is_read_beyond_the_random_operands(name: str) -> None:
    """Operands inside larger buffers of NaN."""
    buffers = [torch.full((2, 2, 30, 20), math.nan) for _ in range(3)]
    inside = [x[:, :, 9 : 9 + n, 5 : 5 + d] for x, n, d in zip(buffers, (7, 11, 11), (6, 6, 3), strict=True)]
    for x in inside:
        x.normal_()
    q, k, v = inside
    seen = rg.inspect(q, k, v, mask=rg.Causal(), backend=name)
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, mask=rg.Causal())


@every
def test_inputs_are_not_changed(name: str) -> None:
    tensors = list(random_operands())
    lengths = torch.tensor([4, 11])
    before = [x.clone() for x in tensors]
    versions = [x._version for x in tensors]
    rg.inspect(*tensors, mask=rg.Padding(lengths) & rg.Causal(), backend=name)
    assert [x._version for x in tensors] == versions
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    assert lengths.tolist() == [4, 11]

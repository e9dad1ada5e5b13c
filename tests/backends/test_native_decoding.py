"""Decoding: few rows read keys and values where they are, and threads share a few key/value heads evenly."""

from __future__ import annotations

import pytest
import torch
from tests.native.calls import hold

import regard as rg
from regard.backends.native.plan import chunks_for, owners_for


@pytest.mark.parametrize("heads", [3, 6, 9, 12, 15, 18, 24])
@pytest.mark.parametrize("length", [1, 190, 1500])
def test_three_key_heads_over_two_threads(heads: int, length: int) -> None:
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(heads)
    try:
        torch.set_num_threads(2)
        q = torch.randn(1, heads, 1, 16, generator=generator)
        k, v = (torch.randn(1, 3, length, 16, generator=generator) for _ in range(2))
        expected = rg.attention(q.double(), k.double(), v.double(), backend="reference").float()
        torch.testing.assert_close(rg.attention(q, k, v, backend="native"), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rows", range(1, 13))
def test_any_few_rows_of_any_width(variant: str, rows: int, dtype: torch.dtype) -> None:
    """Columns by eight, four, two and one vectors, and a window that begins and ends within a vector of keys."""
    q = torch.randn(1, rows, 1, 72, dtype=dtype)
    k, v = torch.randn(1, 1, 333, 72, dtype=dtype), torch.randn(1, 1, 333, 120, dtype=dtype)
    hold(q, k, v, variant, mask=rg.SlidingWindow(202, None), q_positions=torch.tensor([300]))


@pytest.mark.parametrize(
    ("tasks", "threads", "k_len", "parts"),
    [(3, 2, 4096, 2), (4, 2, 4096, 1), (1, 2, 4096, 4), (3, 2, 500, 1), (17, 16, 4096, 4), (0, 2, 99, 1)],
)
def test_tasks_that_do_not_divide_are_split(tasks: int, threads: int, k_len: int, parts: int) -> None:
    assert chunks_for(tasks, threads, k_len, even=True) == parts


@pytest.mark.parametrize(
    ("tasks", "threads", "k_len", "parts"),
    [
        (1, 2, 65536, 2),
        (2, 4, 65536, 2),
        (3, 4, 65536, 3),
        (2, 2, 65536, 4),
        (6, 2, 2048, 4),
        (6, 2, 800, 2),
        (6, 1, 2048, 1),
        (32, 2, 2048, 1),
        (1, 1, 65536, 1),
        (1, 8, 800, 2),
        (0, 2, 9, 1),
    ],
)
def test_a_backward_pass_has_few_owners_of_keys(tasks: int, threads: int, k_len: int, parts: int) -> None:
    assert owners_for(tasks, threads, k_len) == parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("width", "value_width"), [(128, 64), (24, 8), (8, 40), (72, 72)])
@pytest.mark.parametrize(("group", "queries"), [(1, 1), (4, 1), (3, 1), (7, 1), (4, 3)])
def test_widths_and_groups(dtype: torch.dtype, width: int, value_width: int, group: int, queries: int) -> None:
    generator = torch.Generator().manual_seed(width)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    q, k = draw(2, 2 * group, queries, width), draw(2, 2, 403, width)
    v = draw(2, 2, 403, value_width)
    expected = rg.attention(q.double(), k.double(), v.double(), mask=rg.Causal(), backend="reference")
    given = rg.attention(q, k, v, mask=rg.Causal(), backend="native")
    # Float32 sums 403 values and `width` products in another order; the narrow dtypes round the result once.
    error = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    torch.testing.assert_close(given.double(), expected, rtol=error, atol=max(error / 8, 2e-6))


@pytest.mark.parametrize("rows", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("keys", [8, 16, 64])
def test_few_rows_over_whole_vectors_of_keys_take_their_own_maximum(rows: int, keys: int) -> None:
    q, k, v = torch.randn(1, 1, rows, 32), torch.randn(1, 1, keys, 32), torch.randn(1, 1, keys, 32)
    # This call leaves large scores in memory, which the next one is given again.
    rg.attention(q * 100, k, v, backend="native")
    got, want = (rg.attention(q, k, v, backend=name) for name in ("native", "reference"))
    assert torch.allclose(got, want, atol=1e-5)

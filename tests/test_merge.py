"""`rg.merge`: attention over disjoint parts of the keys, joined, is attention over all of them."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import regard as rg

Pair = tuple[Tensor, Tensor]


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, columns: Tensor, **arguments: Any) -> Pair:
    """Attention over some columns, which keep their positions."""
    positions: dict[str, Any] = {"q_positions": torch.arange(q.shape[-2]) + 4, "k_positions": columns}
    looked = rg.inspect(q, k[..., columns, :], v[..., columns, :], backend="reference", **positions, **arguments)
    return looked.out, looked.lse


def splits(k_len: int) -> st.SearchStrategy[list[Tensor]]:
    """The columns dealt out to up to five parts, some perhaps empty."""
    owners = st.lists(st.integers(0, 4), min_size=k_len, max_size=k_len)
    return owners.map(
        lambda owner: [torch.tensor([j for j in range(k_len) if owner[j] == n], dtype=torch.int64) for n in range(5)]
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(parts=splits(11), seed=st.integers(0, 99), sink_in=st.sampled_from([None, 0, 3]), causal=st.booleans())
def test_any_split_of_the_keys_gives_attention_and_its_gradients(
    parts: list[Tensor], seed: int, sink_in: int | None, causal: bool
) -> None:
    q, k, v = (normal(seed + n, 2, 3, size, 4).requires_grad_() for n, size in enumerate((7, 11, 11)))
    sinks = normal(seed + 3, 3).requires_grad_() if sink_in is not None else None
    # Queries at 4 … 10 of keys reversed in time: the first rows see nothing when the mask is causal and wide.
    mask = rg.Causal() & ~rg.Prefix(6) if causal else None
    whole = attend(q, k, v, torch.arange(11), mask=mask, sinks=sinks)
    pieces = [attend(q, k, v, part, mask=mask, sinks=sinks if n == sink_in else None) for n, part in enumerate(parts)]
    joined = rg.merge(pieces)
    leaves = [x for x in (q, k, v, sinks) if x is not None]
    factors = [normal(seed + 4 + n, *x.shape) for n, x in enumerate(whole)]
    for mine, right in zip(joined, whole, strict=True):
        torch.testing.assert_close(mine, right)
    gradients = [_gradients(pair, factors, leaves) for pair in (joined, whole)]
    for mine, right in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, right)


def _gradients(pair: Pair, factors: list[Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    out, lse = pair
    loss = (out * factors[0]).sum() + (torch.where(lse == -torch.inf, 0, lse) * factors[1]).sum()
    return torch.autograd.grad(loss, leaves, materialize_grads=True)


def random_parts(seed: int, count: int, dtype: torch.dtype) -> list[Pair]:
    """Parts with rows that are empty in some and, in row 0, in all."""
    made = []
    for n in range(count):
        lse = 5 * normal(seed + n, 2, 5)
        lse[:, 0] = lse[0, 1 + n % 4] = -torch.inf
        out = torch.where(lse[..., None] == -torch.inf, 0, normal(seed + 50 + n, 2, 5, 3))
        made.append((out.to(dtype), lse))
    return made


def test_associative() -> None:
    parts = random_parts(0, 6, torch.float64)
    flat = rg.merge(parts)
    nested = [
        rg.merge([rg.merge(parts[:2]), rg.merge([parts[2], rg.merge(parts[3:])])]),
        rg.merge([rg.merge(parts[a:b]) for a, b in pairwise((0, 1, 4, 6))]),
        rg.merge(reversed(parts)),
    ]
    for joined in nested:
        torch.testing.assert_close(joined, flat)


def test_one_part_comes_back_as_it_is() -> None:
    part = random_parts(1, 1, torch.float64)[0]
    torch.testing.assert_close(rg.merge(iter([part])), part)


def test_rows_empty_everywhere_are_zero_with_zero_gradient_even_next_to_nan() -> None:
    lse = torch.tensor([[-torch.inf, -torch.inf, 0.5], [-torch.inf, 1.0, 2.0]], requires_grad=True)
    out = torch.ones(2, 3, 4)
    out[0, :2] = torch.nan
    out.requires_grad_()
    joined, total = rg.merge([(out[0], lse[0]), (out[1], lse[1])])
    assert joined[0].tolist() == [0.0] * 4
    assert total[0] == -torch.inf
    torch.testing.assert_close(joined[1:], torch.ones(2, 4))
    grads = torch.autograd.grad(joined.sum() + total[1:].sum(), (out, lse))
    assert all(g.isfinite().all() for g in grads)
    assert not grads[0][:, 0].any()
    assert not grads[1][:, 0].any()
    assert not grads[0][0, 1].any()


def test_derivatives_of_every_order() -> None:
    inputs = [x.requires_grad_() for pair in random_parts(2, 3, torch.float64) for x in pair]
    rows = torch.tensor([1, 2, 3, 4])

    def joined(*flat: Tensor) -> tuple[Tensor, ...]:
        out, lse = rg.merge(zip(flat[::2], flat[1::2], strict=True))
        return out, lse.index_select(1, rows)

    finite = [torch.where(x == -torch.inf, 0, x).detach().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(joined, finite)
    assert torch.autograd.gradgradcheck(joined, finite)
    grads = torch.autograd.grad([x.sum() for x in joined(*inputs)], inputs)
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_joined_in_float32(dtype: torch.dtype) -> None:
    parts = [(out, lse.float()) for out, lse in random_parts(3, 7, dtype)]
    out, lse = rg.merge(parts)
    assert out.dtype == dtype
    assert lse.dtype == torch.float32
    exact = rg.merge((o.double(), x.double()) for o, x in parts)
    torch.testing.assert_close(out, exact[0].to(dtype))
    torch.testing.assert_close(lse, exact[1].float())


def test_far_apart_and_large_lse_neither_overflow_nor_vanish() -> None:
    one = (torch.ones(3, 1), torch.tensor([1e4, -1e4, 88.0]))
    two = (torch.zeros(3, 1), torch.tensor([-1e4, -1e4, 1e4]))
    out, lse = rg.merge([one, two])
    torch.testing.assert_close(out[:, 0], torch.tensor([1.0, 0.5, 0.0]))
    torch.testing.assert_close(lse, torch.tensor([1e4, -1e4 + 0.6931472, 1e4]))


OUT, LSE = torch.zeros(2, 3, 4), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ([], rg.ArgumentError, "merge takes at least one part .*: got none"),
        ([OUT], rg.KindError, r"merge takes pairs \(out, lse\): got float32 \(2, 3, 4\) as part 0"),
        ([(OUT, LSE), (OUT, LSE, 1)], rg.KindError, "merge takes pairs .* as part 1"),
        ([(OUT, None)], rg.KindError, "pairs of float tensors .*: got lse None in part 0"),
        ([(OUT.long(), LSE)], rg.KindError, "pairs of float tensors .*: got out int64"),
        ([(OUT, LSE[:1])], rg.ShapeError, r"\(\*lse.shape, Dv\): got out float32 \(2, 3, 4\) and lse float32 \(1, 3\)"),
        ([(OUT, LSE), (OUT[:, :2], LSE[:, :2])], rg.ShapeError, r"have one shape: got .* in part 0 and .* in part 1"),
        ([(OUT, LSE), (OUT.half(), LSE)], rg.KindError, r"parts share one dtype: .* Convert them with .to\(dtype\)"),
        ([(OUT, LSE), (OUT, LSE.to("meta"))], rg.ArgumentError, "parts are on one device: .* on meta"),
    ],
)
def test_bad_parts(parts: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        rg.merge(parts)


def test_an_inspection_is_told_how_it_becomes_a_pair() -> None:
    looked = rg.inspect(OUT, OUT, OUT)
    with pytest.raises(rg.KindError, match=r"becomes one with \(r.out, r.lse\)"):
        rg.merge([looked])  # type: ignore[list-item]


def test_no_rows() -> None:
    out, lse = rg.merge([(torch.zeros(2, 0, 4), torch.zeros(2, 0))] * 2)
    assert out.shape == (2, 0, 4)
    assert lse.shape == (2, 0)

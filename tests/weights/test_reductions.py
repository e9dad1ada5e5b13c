"""Every streamed quantity equals its definition on the dense weights, and those equal the oracle's."""

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.testing.cases import Case
from regard.testing.oracle import oracle
from regard.testing.tolerance import assert_close, expect

pytestmark = pytest.mark.usefixtures("small_tiles")


def without_dropout(case: Case) -> dict[str, Any]:
    """The arguments of a case; weights are those before dropout."""
    return {**case.operands, **case.arguments, "dropout_p": 0.0}


def lazy(case: Case, backend: str) -> rg.AttentionWeights:
    """The lazy weights of a case, dropout included if it has any."""
    torch.manual_seed(case.seed)
    inputs: dict[str, Any] = {**case.operands, **case.arguments}
    return rg.inspect(**inputs, backend=backend).weights


def look(case: Case, backend: str) -> tuple[rg.AttentionWeights, Tensor]:
    """The lazy weights of a case and all of them, ``(B, H, Lq, Lk)`` in float64."""
    weights = lazy(case, backend)
    call = case.call()
    shape = (call.frame.batch, call.frame.heads, call.frame.q_len, call.frame.k_len)
    return weights, weights.dense().detach().double().reshape(shape)


def same(case: Case, actual: Tensor, expected: Tensor) -> None:
    """``actual`` in the caller's shape equals ``expected (B, H, …)`` up to rounding in the accumulation dtype."""
    call = case.call()
    assert actual.dtype == (call.accumulation_dtype if expected.is_floating_point() else torch.int64)
    eps = torch.finfo(call.accumulation_dtype).eps
    torch.testing.assert_close(actual.double(), call.restore(expected).double(), rtol=64 * eps, atol=64 * eps)


def test_dense_is_the_oracles(case: Case, backend: str) -> None:
    assert_close({"weights": lazy(case, backend).dense()}, expect(**without_dropout(case)), str(case))


def test_max_entropy_and_received(case: Case, backend: str) -> None:
    weights, dense = look(case, backend)
    stats = weights.stats()
    assert set(stats) == {"entropy", "max", "max_logit", "received"}
    top = torch.cat([dense, dense.new_zeros((*dense.shape[:-1], 1))], -1).amax(-1)
    for found in (stats["max"], weights.max()):
        same(case, found, top)
    for found in (stats["received"], weights.received()):
        same(case, found, dense.sum(-2))
    shares = dense
    call = case.call()
    if call.sinks is not None:
        lse = oracle(**without_dropout(case)).lse.reshape(dense.shape[:3])
        shares = torch.cat([dense, torch.exp(call.sinks.double()[:, None] - lse)[..., None]], -1)
    expected = torch.special.entr(shares.detach()).sum(-1)
    with torch.no_grad():
        for found in (stats["entropy"], weights.entropy()):
            same(case, found, expected)
    same(case, weights.entropy(), expected)


def test_max_logit_is_the_largest_visible_score(case: Case, backend: str) -> None:
    weights, dense = look(case, backend)
    pairs = oracle(**without_dropout(case) | {"sinks": None}).pairs
    heads = dense.shape[0] * dense.shape[1]
    expected = torch.full((heads,), -torch.inf, dtype=torch.float64)
    head = pairs.row // max(dense.shape[2], 1)
    expected = expected.scatter_reduce(0, head, pairs.score.detach(), "amax").reshape(dense.shape[:2])
    for found in (weights.max_logit(), weights.stats()["max_logit"]):
        same(case, found, expected)


def test_received_of_some_queries(case: Case) -> None:
    weights, dense = look(case, "reference")
    for queries in (slice(2, 9), slice(None, None, 3), slice(-2, None), slice(None, 1, -2), slice(4, 4)):
        rows = torch.arange(dense.shape[2])[list(range(dense.shape[2])[queries])]
        same(case, weights.received(queries), dense[:, :, rows].sum(-2))


def test_topk(case: Case, backend: str) -> None:
    weights, dense = look(case, backend)
    call = case.call()
    visible = call.mask.over(call.frame).expand(dense.shape).sum(-1)
    for k in (1, 4, 30):
        values, indices = weights.topk(k)
        zeros = dense.new_zeros((*dense.shape[:3], k))
        # Columns beyond the keys, so that there is something to look up when there are none.
        padded = torch.cat([dense, zeros], -1)
        same(case, values, padded.sort(dim=-1, descending=True).values[..., :k])
        found = indices.reshape(zeros.shape)
        real = found >= 0
        count = real.sum(-1)
        assert (real == (torch.arange(k) < count[..., None])).all()
        # A visible pair may have a score of -inf, and is then not among the largest.
        assert ((dense > 0).sum(-1).clamp(max=k) <= count).all()
        assert (count <= visible).all()
        same(case, values, torch.where(real, padded.gather(-1, found.clamp(min=0)), 0))
        assert (torch.zeros_like(padded).scatter_add(-1, found.clamp(min=0), real.double()) <= 1).all()


def test_diagonal_goes_by_position(case: Case) -> None:
    weights, dense = look(case, "reference")
    frame = case.call().frame
    for offset in (0, 1, 3, -2, 40):
        hit = frame.q_pos[:, None, :, None] - frame.k_pos[:, None, None] == offset
        same(case, weights.diagonal(offset), torch.where(hit, dense, 0).sum(-1))


def test_a_diagonal_that_fills_its_block_still_asks_the_mask(backend: str) -> None:
    one = torch.ones(2, 1, 3)
    mask = rg.Dense(torch.tensor([False, True])[:, None, None])
    assert rg.inspect(one, one, one, mask=mask, backend=backend).weights.diagonal(0).tolist() == [[0.0], [1.0]]


def test_segments(case: Case) -> None:
    weights, dense = look(case, "reference")
    k_len, lead = dense.shape[-1], case.call().lead or ()
    generator = torch.Generator().manual_seed(case.seed)
    for shape in ((k_len,), (*lead, k_len)):
        ids = torch.randint(-1, 3, shape, generator=generator)
        count = int(ids.max()) + 1 if ids.numel() else 0
        expected = dense.new_zeros((*dense.shape[:3], count))
        for n in range(count):
            expected[..., n] = torch.where(ids.reshape(-1, 1, 1, k_len) == n, dense, 0).sum(-1)
        same(case, weights.segments(ids), expected)


def test_segments_that_no_key_is_in(weights: rg.AttentionWeights) -> None:
    assert weights.segments([-5] * 11).shape == (2, 4, 7, 0)


def test_pool(case: Case, backend: str) -> None:
    weights, dense = look(case, backend)
    q_len, k_len = dense.shape[2:]
    for rows, cols in ((1, 1), (2, 3), (5, 2), (7, 11)):
        if rows > q_len or cols > k_len:
            with pytest.raises(rg.ArgumentError, match="at most one bin for each of the"):
                weights.pool(rows, cols)
            continue
        row_bins, col_bins = bins(q_len, rows), bins(k_len, cols)
        mass = [[dense[:, :, r][..., c].sum(-1).mean(-1) for c in col_bins] for r in row_bins]
        peak = [[dense[:, :, r][..., c].flatten(2).amax(-1) for c in col_bins] for r in row_bins]
        same(case, weights.pool(rows, cols), torch.stack([torch.stack(x, -1) for x in mass], -2))
        same(case, weights.pool(rows, cols, kind="max"), torch.stack([torch.stack(x, -1) for x in peak], -2))


def bins(size: int, count: int) -> list[list[int]]:
    """What is in each of ``count`` bins."""
    return [[n for n in range(size) if n * count // size == at] for at in range(count)]


def test_rows_of_a_mass_map_sum_to_one(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    weights = rg.inspect(*qkv, mask=rg.Causal()).weights
    for cols in (1, 3, 11):
        torch.testing.assert_close(weights.pool(5, cols).sum(-1), torch.ones(2, 4, 5, dtype=torch.float64))


def test_topk_takes_the_lower_column_of_equal_scores(backend: str) -> None:
    q, k, v = (
        torch.zeros(2, 9, 3),
        torch.randn(2, 23, 3, generator=torch.Generator().manual_seed(1)),
        torch.zeros(2, 23, 1),
    )
    values, indices = rg.inspect(q, k, v, mask=rg.SlidingWindow(13), backend=backend).weights.topk(4)
    first = torch.arange(14, 23) - 13
    assert indices.tolist() == [[list(range(n, n + 4)) for n in first.tolist()]] * 2
    torch.testing.assert_close(values, torch.full((2, 9, 4), 1 / 14))


def test_topk_keeps_the_order_of_weights_that_underflow(backend: str) -> None:
    q = torch.tensor([[1.0]])
    k = torch.tensor([[-300.0], [0.0], [-200.0], [-400.0]])
    values, indices = rg.inspect(q, k, k, scale=1.0, backend=backend).weights.topk(5)
    assert indices.tolist() == [[1, 2, 0, 3, -1]]
    assert values.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]


def test_heads_that_see_different_ranges_share_tiles(backend: str) -> None:
    q = torch.randn(3, 37, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mask = rg.Predicate(lambda b, h, q, k: (q - k).abs() <= torch.tensor([6, 14, 1])[h])
    weights = rg.inspect(q, q, q, mask=mask, backend=backend).weights
    dense = oracle(q, q, q, mask=mask).weights
    torch.testing.assert_close(weights.received(), dense.sum(-2))
    torch.testing.assert_close(weights.topk(40).values[..., :37], dense.sort(dim=-1, descending=True).values)


def test_what_is_hidden_reaches_no_quantity(backend: str) -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, 2, 13, 4, generator=generator) for _ in range(3))
    mask = rg.Causal() & rg.Padding(torch.tensor([9])) & rg.Predicate(lambda b, h, q, k: q % 4 != 1)
    clean = rg.inspect(q.clone(), k.clone(), v, mask=mask, backend=backend).weights
    k[:, :, 9:] = torch.nan
    v[:, :, 9:] = torch.inf
    q[:, :, 1::4] = torch.nan
    odd = rg.inspect(q, k, v, mask=mask, backend=backend).weights
    for name, value in odd.stats().items():
        torch.testing.assert_close(value, clean.stats()[name])
    torch.testing.assert_close(odd.topk(3), clean.topk(3))
    torch.testing.assert_close(odd.pool(4, 4), clean.pool(4, 4))
    torch.testing.assert_close(odd.dense(), clean.dense())


@pytest.mark.parametrize(
    ("use", "error", "match"),
    [
        (lambda w: w.topk(0), rg.ArgumentError, "k is an int of at least 1: got 0"),
        (lambda w: w.topk(2.0), rg.ArgumentError, "k is an int of at least 1: got 2.0"),
        (lambda w: w.received([1, 2]), rg.KindError, r"a slice of rows, such as slice\(-64, None\): got \[1, 2\]"),
        (lambda w: w.diagonal(1.0), rg.KindError, "offset is an int, .*: got 1.0"),
        (lambda w: w.segments(torch.zeros(11)), rg.KindError, r"integer ids, one per key: got float32 \(11,\)"),
        (lambda w: w.segments([0, 1]), rg.ShapeError, r"one id per key, \(11,\) or \(2, 11\): got shape \(2,\)"),
        (lambda w: w.pool(8, 2), rg.ArgumentError, "one bin for each of the 7 rows it pools: got 8"),
        (lambda w: w.pool(2, 12), rg.ArgumentError, "one bin for each of the 11 cols it pools: got 12"),
        (lambda w: w.pool(0, 2), rg.ArgumentError, "rows is an int of at least 1: got 0"),
        (lambda w: w.pool(2, 2, kind="mean"), rg.ArgumentError, "kind is 'mass' or 'max': got 'mean'"),
    ],
)
def test_bad_arguments(weights: rg.AttentionWeights, use, error: type[Exception], match: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=match):
        use(weights)

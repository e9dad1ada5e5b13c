"""What the compiled kernels gather of the weights, against the dense weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard._call import make_call
from regard.backends.base import Gathered
from regard.backends.native import library
from regard.backends.native.statistics import gather

pytestmark = pytest.mark.skipif(not library.supported(), reason="no kernels were built here")

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"mask": rg.Causal()},
    "window": {"mask": rg.SlidingWindow(37, 5)},
    "bits": {"mask": rg.Dilated(3) | rg.SlidingWindow(4)},
    "padding": {"mask": rg.Causal() & rg.Padding(torch.tensor([391, 202]))},
    "changed": {"mask": rg.Causal(), "score_mod": [rg.Softcap(2.0), rg.Alibi.for_heads(4)]},
    "sinks": {"mask": rg.Causal(), "sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])},
}


def dense(weights: Tensor, rows: int, cols: int) -> dict[str, Tensor]:
    """The definitions, in float64."""
    w = weights.double()
    b, h, q_len, k_len = w.shape
    row_bin, col_bin = torch.arange(q_len) * rows // q_len, torch.arange(k_len) * cols // k_len
    mass = torch.zeros(b, h, rows, cols, dtype=torch.float64)
    peak = torch.zeros_like(mass)
    for i in range(rows):
        for j in range(cols):
            part = w[:, :, row_bin == i][..., col_bin == j]
            mass[:, :, i, j], peak[:, :, i, j] = part.sum((2, 3)), part.amax((2, 3))
    return {
        "entropy": -torch.special.xlogy(w, w).sum(-1),
        "max": w.amax(-1),
        "received": w.sum(2),
        "mass": mass / row_bin.bincount()[:, None],
        "peak": peak,
        "top": w.topk(5).values,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_dense_weights(
    variant: str, case: str, threads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "threads", lambda: threads)
    monkeypatch.setattr(library, "parallel", lambda: 0)
    q, k = torch.randn(2, 4, 391, 12, dtype=dtype), torch.randn(2, 2, 391, 12, dtype=dtype)
    seen = rg.inspect(q, k, k, **CASES[case]).weights
    expected = dense(seen.dense(), 7, 9)
    # A score is its weight's logarithm and the row's lse.
    expected["max_logit"] = (expected["max"].log() + rg.inspect(q, k, k, **CASES[case]).lse).amax(-1)
    sink = 0.0
    if case == "sinks":
        share = 1 - seen.dense().double().sum(-1)
        sink = -torch.special.xlogy(share, share)
    found = {
        "entropy": seen.entropy() - sink,
        "max": seen.max(),
        "max_logit": seen.max_logit(),
        "received": seen.received(),
        "mass": seen.pool(7, 9),
        "peak": seen.pool(7, 9, kind="max"),
        "top": seen.topk(5).values,
    }
    for name, value in found.items():
        assert torch.allclose(value.double(), expected[name], rtol=2e-5, atol=2e-5), name


def test_is_what_the_methods_use(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No silent way round the kernels: the tile-wise pass is not taken for whole reductions."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("streamed tile by tile")

    monkeypatch.setattr("regard.weights.lazy.stream", never)
    q = torch.randn(1, 2, 70, 8)
    weights = rg.inspect(q, q, q, mask=rg.Causal()).weights
    weights.stats(), weights.topk(3), weights.pool(7, 7)
    with pytest.raises(AssertionError, match="tile by tile"):
        weights.segments([0] * 70)


def test_equal_scores_come_by_lower_column(variant: str) -> None:
    k = torch.zeros(1, 1, 300, 4)
    k[..., 210:213, :] = 1.0
    found = rg.inspect(torch.ones(1, 1, 2, 4), k, k).weights.topk(6)
    assert found.indices.tolist() == [[[[210, 211, 212, 0, 1, 2]] * 2]]
    few = rg.inspect(torch.ones(1, 1, 3, 4), k, k, mask=rg.Prefix(2)).weights.topk(4)
    assert few.indices.tolist() == [[[[0, 1, -1, -1]] * 3]]
    assert few.values[..., 2:].eq(0).all()


def test_hidden_keys_reach_nothing(variant: str) -> None:
    q, k = torch.randn(1, 1, 40, 8), torch.randn(1, 1, 250, 8)
    clean = rg.inspect(q, k[:, :, :230], k[:, :, :230]).weights.stats()
    k[:, :, 230:] = torch.nan
    found = rg.inspect(q, k, torch.zeros_like(k), mask=rg.Prefix(230)).weights.stats()
    torch.testing.assert_close(found["received"][..., :230], clean["received"])
    assert found["received"][..., 230:].eq(0).all()
    for name in ("entropy", "max", "max_logit"):
        torch.testing.assert_close(found[name], clean[name])


def test_rows_that_see_nothing(variant: str) -> None:
    q = torch.randn(1, 2, 20, 8)
    call = make_call(q, q, q, mask=rg.Nothing())
    top, entropy = torch.empty(1, 2, 20), torch.empty(1, 2, 20)
    gather(call, torch.zeros(1, 2, 20), Gathered(top=top, entropy=entropy))
    assert top.eq(-torch.inf).all()
    assert entropy.eq(0).all()


@pytest.mark.parametrize("case", CASES)
def test_bins_of_a_size_and_products_with_a_factor(variant: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins of 16 rows and 24 columns, the last ones cut off; the greatest product of a weight and its row's factor."""
    monkeypatch.setattr(library, "threads", lambda: 3)
    monkeypatch.setattr(library, "parallel", lambda: 0)
    q, k = torch.randn(2, 4, 391, 12), torch.randn(2, 2, 391, 12)
    seen = rg.inspect(q, k, k, **CASES[case])
    factors = torch.rand(2, 4, 391) * 300
    n, m = -(-391 // 16), -(-391 // 24)
    mass, peak, lift = torch.zeros(3, 2, 4, n, m).unbind()
    call = make_call(q, k, k, **CASES[case])
    gather(call, seen.lse, Gathered(mass=mass, peak=peak, lift=(lift, factors), extent=(n * 16, m * 24)))
    padded = torch.nn.functional.pad(seen.weights.dense(), (0, m * 24 - 391, 0, n * 16 - 391))
    binned = padded.unflatten(3, (m, 24)).unflatten(2, (n, 16))
    lifted = torch.nn.functional.pad(factors, (0, n * 16 - 391)).unflatten(2, (n, 16))[..., None, None] * binned
    torch.testing.assert_close(mass, binned.sum((3, 5)), rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(peak, binned.amax((3, 5)), rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(lift, lifted.amax((3, 5)), rtol=2e-5, atol=2e-5)

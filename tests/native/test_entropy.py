"""The statistics of the rows by the kernels' forward pass, and the entropy's gradient, against the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.backends.native import library

pytestmark = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "causal": {"mask": rg.Causal()},
    "window": {"mask": rg.SlidingWindow(3, 1)},
    "bits": {"mask": rg.Dilated(3)},
    "half hidden": {"mask": rg.Causal() & rg.Padding(torch.tensor([130, 9])) & ~rg.Prefix(40)},
    "softcap": {"mask": rg.Causal(), "score_mod": rg.Softcap(1.5)},
    "bias": {"mask": rg.Causal(), "score_mod": rg.Bias(torch.linspace(-2, 2, 4 * 130 * 130).reshape(4, 130, 130))},
    "sinks": {"mask": rg.Causal() & ~rg.Prefix(5), "sinks": torch.tensor([0.5, -1.0, 4.0, 0.0])},
}


def operands(dtype: torch.dtype = torch.float32, length: int = 130) -> list[Tensor]:
    return [torch.randn(2, heads, length, 16).to(dtype).requires_grad_() for heads in (4, 2, 2)]


def learned(case: dict[str, Any]) -> tuple[dict[str, Any], list[Tensor]]:
    """The case with leaves of its own for what may be learned."""
    case, leaves = dict(case), []
    if "sinks" in case:
        case["sinks"] = case["sinks"].clone().requires_grad_()
        leaves.append(case["sinks"])
    if isinstance(case.get("score_mod"), rg.Bias):
        leaves.append(case["score_mod"].bias.clone().requires_grad_())
        case["score_mod"] = rg.Bias(leaves[-1])
    return case, leaves


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_gradient_of_entropy_out_and_lse_together(
    variant: str, name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "threads", lambda: threads)
    monkeypatch.setattr(library, "parallel", lambda: 0)
    ops = operands()
    case, leaves = learned(CASES[name])
    for_entropy, for_out = torch.randn(2, 4, 130), torch.randn(2, 4, 130, 16)

    def found(backend: str) -> list[Tensor]:
        seen = rg.inspect(*ops, stats=("max_logit", "entropy", "max"), backend=backend, **case)
        loss = (seen.stats["entropy"] * for_entropy).sum() + (seen.out * for_out).sum()
        loss = loss + torch.where(seen.lse == -torch.inf, 0, seen.lse).sum()
        rows = [seen.stats[name] for name in ("max_logit", "max")]
        assert backend == "reference" or not any(x.requires_grad for x in rows)
        return [*(x.detach() for x in rows), seen.stats["entropy"], *torch.autograd.grad(loss, ops + leaves)]

    for ours, right in zip(found("native"), found("reference"), strict=True):
        torch.testing.assert_close(ours, right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("queries", [1, 3, 20, 500])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("name", ["full", "window", "far apart", "bits", "softcap", "sinks", "little"])
def test_statistics_of_few_rows_and_many_keys(
    variant: str, name: str, threads: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "threads", lambda: threads)
    monkeypatch.setattr(library, "parallel", lambda: 0)
    q, k, v = (torch.randn(1, heads, length, 16) for heads, length in ((4, queries), (1, 1999), (1, 1999)))
    cases: dict[str, dict[str, Any]] = {
        **CASES,
        "far apart": {"mask": rg.Prefix(20) | rg.SlidingWindow(600)},
        "little": {"mask": rg.Prefix(700) & ~rg.Prefix(690), "sinks": torch.tensor([-torch.inf, 90.0, -90.0, 0.0])},
    }
    wanted = ("max", "entropy", "max_logit")
    ours = rg.inspect(q, k, v, stats=wanted, backend="native", **cases[name]).stats
    right = rg.inspect(q, k, v, stats=wanted, backend="reference", **cases[name]).stats
    assert tuple(ours) == wanted
    for stat in wanted:
        torch.testing.assert_close(ours[stat], right[stat], rtol=2e-5, atol=2e-6)


def test_entropy_of_scores_that_keep_rising(variant: str) -> None:
    k = torch.arange(1200.0)[:, None] / 64
    q = torch.tensor([[0.0], [1e-3], [0.1], [1.0], [-1.0], [30.0], [-30.0]])
    ours = rg.inspect(q, k, k, scale=1.0, stats=("entropy", "max"), backend="native").stats
    right = rg.inspect(q.double(), k.double(), k.double(), scale=1.0, stats=("entropy", "max")).stats
    for stat, found in ours.items():
        torch.testing.assert_close(found.double(), right[stat], rtol=1e-5, atol=1e-6)


def test_gradient_of_entropy_alone_and_not_of_the_values(variant: str) -> None:
    ops = operands()
    (entropy,) = rg.inspect(*ops, mask=rg.Causal(), stats=("entropy",), backend="native").stats.values()
    grads = torch.autograd.grad(entropy.square().sum(), ops)
    (right,) = rg.inspect(*ops, mask=rg.Causal(), stats=("entropy",), backend="reference").stats.values()
    for ours, theirs in zip(grads[:2], torch.autograd.grad(right.square().sum(), ops[:2]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)
    assert not grads[2].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_rounds_no_more_than_the_operands(variant: str, dtype: torch.dtype) -> None:
    ops = operands(dtype)
    weight = torch.randn(2, 4, 130)

    def grads(ops: list[Tensor], backend: str) -> list[Tensor]:
        (entropy,) = rg.inspect(*ops, mask=rg.Causal(), stats=("entropy",), backend=backend).stats.values()
        return [entropy, *torch.autograd.grad((entropy * weight).sum(), ops[:2])]

    exact = [x.detach().float().requires_grad_() for x in ops]
    for ours, right in zip(grads(ops, "native"), grads(exact, "reference"), strict=True):
        # Grouped heads are summed in float32; what is left is one rounding of the gradient, and of its summands.
        allowed = 2 * torch.finfo(ours.dtype).eps * right.abs().max() + 1e-5
        assert (ours.float() - right).abs().max() <= allowed


def test_dropout_changes_the_output_and_not_the_entropy(variant: str) -> None:
    ops = operands()

    def grads(backend: str) -> list[Tensor]:
        torch.manual_seed(3)
        seen = rg.inspect(*ops, mask=rg.Causal(), dropout_p=0.4, stats=("entropy",), backend=backend)
        return list(torch.autograd.grad(seen.out.square().sum() + seen.stats["entropy"].square().sum(), ops))

    for ours, right in zip(grads("native"), grads("reference"), strict=True):
        torch.testing.assert_close(ours, right, rtol=2e-5, atol=5e-5)


def test_extreme_scores_give_finite_gradients(variant: str) -> None:
    q, k, v = operands()
    with torch.no_grad():
        q.mul_(1e3)
    (entropy,) = rg.inspect(q, k, v, mask=rg.Causal(), stats=("entropy",), backend="native").stats.values()
    assert all(x.isfinite().all() for x in torch.autograd.grad(entropy.sum(), (q, k)))


def test_lazy_weights_take_their_entropy_from_the_kernels() -> None:
    ops = operands()
    weights = rg.inspect(*ops, mask=rg.Causal()).weights
    eager = rg.inspect(*ops, mask=rg.Causal(), backend="reference").weights
    ours, right = (torch.autograd.grad(w.entropy().sum(), ops[0])[0] for w in (weights, eager))
    torch.testing.assert_close(ours, right, rtol=2e-5, atol=2e-5)
    assert rg.explain(*ops, mask=rg.Causal()).backend == "native"


def test_a_second_derivative_is_refused() -> None:
    ops = operands(length=20)
    (entropy,) = rg.inspect(*ops, stats=("entropy",), backend="native").stats.values()
    (first,) = torch.autograd.grad(entropy.sum(), ops[0], create_graph=True)
    with pytest.raises(rg.UnsupportedError, match=r'no second derivative.*backend="reference"'):
        first.sum().backward()

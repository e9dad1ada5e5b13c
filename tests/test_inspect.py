"""`rg.inspect`: what attention returns, and what it saw on the way."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.testing.cases import make_case
from regard.testing.oracle import oracle

BACKENDS = ("reference", "blockwise")


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    q = torch.randn(2, 4, 7, 3, generator=generator)
    k, v = torch.randn(2, 2, 2, 13, 3, generator=generator)
    return q, k, v


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(100, 140))
def test_everything_in_the_callers_shape(seed: int, backend: str) -> None:
    case = make_case(seed)
    inputs: dict[str, Any] = {**case.operands, **case.arguments, "backend": backend}
    torch.manual_seed(seed)
    out = rg.attention(**inputs)
    torch.manual_seed(seed)
    looked = rg.inspect(**inputs, stats=("entropy", "max_logit", "max"))
    rows = out.shape[:-1]
    assert torch.equal(looked.out, out)
    assert looked.lse.shape == looked.weights.shape[:-1] == looked.stats["entropy"].shape == rows
    assert looked.stats["max_logit"].shape == rows[:-1]
    assert looked.lse.dtype == looked.weights.dtype == looked.stats["entropy"].dtype
    streamed = looked.weights.stats()
    for name, found in looked.stats.items():
        bound = 64 * torch.finfo(found.dtype).eps
        torch.testing.assert_close(found, streamed[name], rtol=bound, atol=bound)


@pytest.mark.parametrize("backend", BACKENDS)
def test_entropy_of_the_pass_is_differentiable(qkv: tuple[Tensor, Tensor, Tensor], backend: str) -> None:
    q, k, v = (x.double()[:1, :, :5].requires_grad_() for x in qkv)
    sinks = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)

    def entropy(q: Tensor, k: Tensor, sinks: Tensor) -> Tensor:
        looked = rg.inspect(q, k, v, mask=rg.SlidingWindow(2), sinks=sinks, stats=["entropy"], backend=backend)
        found: Tensor = looked.stats["entropy"]
        return found

    assert torch.autograd.gradcheck(entropy, (q, k, sinks))


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_lse_and_rows_that_see_nothing(qkv: tuple[Tensor, Tensor, Tensor], backend: str | None) -> None:
    mask = rg.Causal() & rg.Predicate(lambda b, h, q, k: q != 8)
    looked = rg.inspect(*qkv, mask=mask, stats=("entropy", "max_logit"), backend=backend)
    expected = oracle(*qkv, mask=mask)
    torch.testing.assert_close(looked.lse, expected.lse.float())
    assert (looked.lse[:, :, 2] == -torch.inf).all()
    assert (looked.stats["entropy"][:, :, 2] == 0).all()
    assert (looked.weights[:, :, 2] == 0).all()
    nothing = rg.inspect(*qkv, mask=rg.Nothing(), stats=("max_logit",), backend=backend)
    assert (nothing.stats["max_logit"] == -torch.inf).all()


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_weights_are_those_before_dropout(qkv: tuple[Tensor, Tensor, Tensor], backend: str | None) -> None:
    q, k, _ = qkv
    identity = torch.eye(13).expand(2, 2, 13, 13)
    torch.manual_seed(0)
    looked = rg.inspect(q, k, identity, dropout_p=0.5, backend=backend)
    dense = looked.weights.dense()
    torch.testing.assert_close(dense.sum(-1), torch.ones(2, 4, 7))
    kept = looked.out != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(looked.out[kept], 2 * dense[kept])


def test_rows_sum_to_one_less_the_sinks_share(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    sinks = torch.tensor([0.0, 1.0, -2.0, 5.0])
    looked = rg.inspect(*qkv, sinks=sinks)
    torch.testing.assert_close(looked.weights.dense().sum(-1), 1 - torch.exp(sinks[:, None] - looked.lse))
    torch.testing.assert_close(looked.weights.pool(7, 2).sum(-1), looked.weights.dense().sum(-1))


def test_autocast_gives_out_in_its_dtype_and_weights_in_float32(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        looked = rg.inspect(*qkv)
    assert looked.out.dtype == torch.bfloat16
    assert looked.lse.dtype == looked.weights.dtype == torch.float32
    rounded = [x.bfloat16() for x in qkv]
    torch.testing.assert_close(looked.weights.dense(), oracle(rounded[0], rounded[1], rounded[2]).weights.float())


def test_an_inspection_is_frozen_and_prints_shapes(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    looked = rg.inspect(*qkv, stats=["max_logit"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        looked.out = looked.lse  # type: ignore[misc]
    assert repr(looked) == (
        "Inspection(out=float32 (2, 4, 7, 3), lse=float32 (2, 4, 7), weights=<AttentionWeights (2, 4, 7, 13) float32: "
        "2.91 kB if dense, up to 4.37 kFLOP a pass>, stats={'max_logit': float32 (2, 4)})"
    )


ASKED = (
    ("topk", 3), "max", ("pool", 3, 4), "received", ("topk", 2), "entropy", ("pool", 3, 4, "max"), ("pool", 7, 2),
    "max_logit",
)  # fmt: skip


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_every_statistic_of_a_training_pass_is_what_its_method_gives(
    qkv: tuple[Tensor, Tensor, Tensor], backend: str | None
) -> None:
    q, k, v = (x.clone().requires_grad_() for x in qkv)
    looked = rg.inspect(q, k, v, mask=rg.Causal(), sinks=torch.ones(4), stats=ASKED, backend=backend)
    assert tuple(looked.stats) == ASKED
    assert looked.stats["entropy"].requires_grad
    (looked.out.sum() + looked.stats["entropy"].sum()).backward()
    assert q.grad is not None
    for asked, found in looked.stats.items():
        name, *arguments = (asked,) if isinstance(asked, str) else asked
        expected = getattr(looked.weights, name)(*arguments)
        if name == "topk":
            assert torch.equal(found.indices, expected.indices)
            found, expected = found.values, expected.values
        assert name == "entropy" or backend == "reference" or not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_statistics_of_one_pass_over_the_weights(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    weights = rg.inspect(*qkv, mask=rg.Causal()).weights
    dense = weights.dense()
    found = weights.stats(ASKED)
    assert tuple(found) == ASKED
    for k in (2, 3):
        torch.testing.assert_close(found["topk", k].values, dense.topk(k).values)
    torch.testing.assert_close(found["pool", 7, 2], torch.stack([dense[..., :7].sum(-1), dense[..., 7:].sum(-1)], -1))
    torch.testing.assert_close(found["received"], dense.sum(2))
    torch.testing.assert_close(found["max"], dense.amax(-1))


def test_an_inspection_prints_the_shapes_of_the_largest_weights(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    looked = rg.inspect(*qkv, stats=[("topk", 2), ("topk", 2)])
    assert repr(looked).endswith("stats={('topk', 2): Top(values=float32 (2, 4, 7, 2))})")


@pytest.mark.parametrize(
    ("stats", "match"),
    [
        (("entropy", "mean"), r"stats are some of 'entropy', 'max', .*: got 'mean'. Everything else is a method of"),
        ("entropy", "stats takes a sequence out of 'entropy', 'max', .*: got 'entropy'"),
        (None, "stats takes a sequence .*: got None"),
        ([("topk",)], r"stats are some of .*: got \('topk',\)"),
        ([("topk", 0)], "k is an int of at least 1: got 0"),
        ([("pool", 3, 14)], "one bin for each of the 13 cols it pools: got 14"),
        ([("pool", 3, 4, [])], r"kind is 'mass' or 'max': got \[\]"),
        (["topk"], r"\(\"topk\", k\).*: got 'topk'"),
    ],
)
def test_unknown_stats(qkv: tuple[Tensor, Tensor, Tensor], stats: Any, match: str) -> None:
    with pytest.raises(rg.ArgumentError, match=match):
        rg.inspect(*qkv, stats=stats)
    with pytest.raises(rg.ArgumentError, match=match):
        rg.inspect(*qkv).weights.stats(stats)

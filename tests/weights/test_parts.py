"""Parts of the weights: any index means what it means on the dense tensor, and every part is differentiable."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import regard as rg
from regard._call import make_call
from regard.testing.oracle import oracle

Operands = tuple[Tensor, Tensor, Tensor]

INDEXES: list[Any] = [
    0,
    -1,
    (1, 3),
    (1, -2, 6),
    (0, 1, 2, 3),
    ...,
    (..., 10),
    (0, ..., 4),
    (slice(None), 2, slice(1, 5), slice(3, 9)),
    (slice(1, 2), slice(1, 3), slice(-3, None), slice(None, -4)),
    (0, slice(None, None, 2), slice(1, 6, 2), slice(1, 11, 3)),
    (slice(None), slice(None), slice(5, 2), 0),
    (0, 0, [3, 0, -1]),
    (slice(None), slice(None), torch.tensor([6, 1, 1]), slice(2, 4)),
    (slice(None), [3, 0], 2),
    (1, slice(None), 5, torch.tensor([True, False] * 5 + [True])),
    (0, 1, 2, []),
    (np.int64(1), torch.tensor(2), slice(None)),
]


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_index_means_what_it_means_on_the_dense_tensor(weights: rg.AttentionWeights, index: Any) -> None:
    usual = tuple(int(x) if isinstance(x, np.integer) else x for x in index) if isinstance(index, tuple) else index
    torch.testing.assert_close(weights[index], weights.dense()[usual])


def test_a_negative_step_goes_backwards(weights: rg.AttentionWeights) -> None:
    part = weights[0, :, 6:1:-2, ::-1]
    torch.testing.assert_close(part, weights.dense()[0, :, [6, 4, 2]].flip(-1))


@pytest.mark.parametrize("lead", [None, (), (2,), (1, 3), (2, 1, 2)], ids=str)
def test_parts_have_the_dims_of_the_operands(lead: tuple[int, ...] | None, backend: str) -> None:
    generator = torch.Generator().manual_seed(3)
    dims = (5, 4) if lead is None else (*lead, 2, 5, 4)
    q, k, v = (torch.randn(dims, generator=generator, dtype=torch.float64) for _ in range(3))
    looked = rg.inspect(q, k, v, mask=rg.Causal(), backend=backend)
    weights, expected = looked.weights, oracle(q, k, v, mask=rg.Causal()).weights
    assert weights.shape == expected.shape == weights.dense().shape
    assert weights.ndim == expected.ndim
    assert len(weights) == expected.shape[0]
    torch.testing.assert_close(weights.dense(), expected)
    torch.testing.assert_close(weights[-1], expected[-1])
    torch.testing.assert_close(weights[..., 1:4, ::2], expected[..., 1:4, ::2])
    torch.testing.assert_close(weights[(0,) * (expected.ndim - 1)], expected[(0,) * (expected.ndim - 1)])
    assert weights.entropy().shape == weights.max().shape == looked.lse.shape
    assert weights.received().shape == (*expected.shape[:-2], 5)
    assert weights.max_logit().shape == expected.shape[:-2]


def test_several_leading_dims_take_any_index(backend: str) -> None:
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(2, 3, 2, 5, 4, generator=generator) for _ in range(3))
    weights = rg.inspect(q, k, v, backend=backend).weights
    dense = weights.dense()
    for index in ((1, slice(None, None, 2)), (slice(None), [2, 0], 1), (0, 2, 1, slice(2, 4)), (slice(1), -1)):
        torch.testing.assert_close(weights[index], dense[index])


@pytest.mark.parametrize(
    ("index", "error", "match"),
    [
        ((0, 0, 0, 0, 0), rg.ArgumentError, "take at most 4 indexes and one '...': got 0, 0, 0, 0, 0"),
        ((..., 0, ...), rg.ArgumentError, "take at most 4 indexes and one '...'"),
        (2, rg.ArgumentError, "an index of a dim of size 2 lies in -2 … 1: got 2"),
        ((0, [1, 4]), rg.ArgumentError, r"indexes of a dim of size 4 lie in -4 … 3: got \[1, 4\]"),
        ((0, [1], [2]), rg.ArgumentError, r"one list or tensor among their indexes: got 0, \[1\], \[2\]"),
        ((0, [True]), rg.ArgumentError, "a bool index of a dim of size 4 has as many entries: got 1"),
        (None, rg.KindError, "indexed by ints, slices, .*: got None"),
        (1.0, rg.KindError, "indexed by ints, slices, .*: got 1.0"),
        (np.array([0, 1]), rg.KindError, r"indexed by ints, slices, .*: got array\(\[0, 1\]\)"),
        (True, rg.KindError, "indexed by ints, slices, .*: got True"),
        (torch.zeros(2), rg.KindError, "an index tensor holds ints or bools: got float32"),
        (torch.ones(2, 4, dtype=torch.bool), rg.KindError, r"1-D tensor of ints or bools: got bool \(2, 4\)"),
    ],
)
def test_bad_index(weights: rg.AttentionWeights, index: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        weights[index]


def test_limit_names_what_to_call_instead() -> None:
    q = torch.zeros(1, 4096, 1)
    weights = rg.inspect(q, q, q).weights
    assert weights[0, :, :4095].shape == (4096, 4095)
    with pytest.raises(
        rg.ArgumentError, match=r"the limit is 1 kB. Take a part with weights\[b, h, i0:i1, j0:j1\], .*pool"
    ):
        weights.dense(max_bytes=1000)
    longer = torch.zeros(1, 4097, 1)
    for use in (lambda w: w.dense(), lambda w: w[...], np.asarray):
        with pytest.raises(
            rg.ArgumentError, match=r"take 67.1 MB, .* lift the limit with .dense\(max_bytes=67141636\)"
        ):
            use(rg.inspect(longer, longer, longer).weights)
    assert rg.inspect(longer, longer, longer).weights.dense(max_bytes=67141636).shape == (1, 4097, 4097)


def test_numpy_gets_small_weights(weights: rg.AttentionWeights) -> None:
    np.testing.assert_array_equal(np.asarray(weights), weights.dense().detach().numpy())
    assert np.asarray(weights, dtype=np.float32).dtype == np.float32
    with pytest.raises(rg.ArgumentError, match="no memory to share with an array"):
        np.asarray(weights, copy=False)


def test_low_precision_gives_float32_weights_of_the_operands_as_they_are(backend: str) -> None:
    generator = torch.Generator().manual_seed(6)
    for dtype in (torch.bfloat16, torch.float16):
        q, k, v = (torch.randn(2, 7, 4, generator=generator).to(dtype) for _ in range(3))
        weights = rg.inspect(q, k, v, mask=rg.Causal(), backend=backend).weights
        assert weights.dtype == weights.dense().dtype == weights.max().dtype == torch.float32
        torch.testing.assert_close(weights.dense(), oracle(q, k, v, mask=rg.Causal()).weights.float())


def gradcheck(fn: Callable[..., Tensor], *inputs: Tensor) -> bool:
    passed: bool = torch.autograd.gradcheck(fn, inputs)
    return passed


@pytest.mark.parametrize("heads", [slice(None), 3], ids=["all heads", "one head"])
def test_slices_and_entropy_have_the_gradients_of_their_definition(backend: str, heads: slice | int) -> None:
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, k, v = normal(1, 4, 3, 2), normal(1, 2, 5, 2), normal(1, 2, 5, 1)
    bias, slopes, sinks = normal(4, 1, 5), normal(4), normal(4)
    mask = rg.SlidingWindow(2) & rg.Predicate(lambda b, h, q, k: (q != 3) & (k != 4))

    def look(q: Tensor, k: Tensor, bias: Tensor, slopes: Tensor, sinks: Tensor) -> rg.AttentionWeights:
        mods = [rg.Bias(bias), rg.Softcap(3.0), rg.Alibi(slopes), rg.ScoreMod(lambda s, b, h, q, k: s * s.abs().sqrt())]
        return rg.inspect(q, k, v, mask=mask, score_mod=mods, sinks=sinks, backend=backend).weights

    inputs = (q, k, bias, slopes, sinks)
    assert gradcheck(lambda *x: look(*x)[0, heads, 1:, 1:4], *inputs)
    assert gradcheck(lambda *x: look(*x)[0, heads, [2, 0]], *inputs)
    assert gradcheck(lambda *x: look(*x).entropy(), *inputs)


def test_gradients_of_a_part_agree_with_the_oracle_and_see_nothing_hidden(backend: str) -> None:
    generator = torch.Generator().manual_seed(8)
    mask = rg.Causal() & rg.Padding(torch.tensor([9])) & rg.Predicate(lambda b, h, q, k: q % 4 != 1)
    q, k, v = (torch.randn(1, 2, 13, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    k[:, :, 9:] = torch.nan
    v[:, :, 9:] = torch.inf
    q[:, :, 1::4] = torch.nan
    bias = torch.where(mask.dense(13, 13), torch.randn(13, 13, generator=generator, dtype=torch.float64), torch.inf)
    leaves = [x.requires_grad_() for x in (q, k, bias)]
    # Not a number, with its derivative, wherever the key comes after the query.
    by_age = rg.ScoreMod(lambda s, b, h, q, k: s * (q - k + 1).to(s.dtype).sqrt())
    arguments: dict[str, Any] = {"mask": mask, "score_mod": [rg.Bias(bias), by_age, rg.Softcap(2.0)]}
    weights = rg.inspect(q, k, v, **arguments, backend=backend).weights
    exact = oracle(q, k, v, **arguments).weights
    factor = torch.randn(exact.shape, generator=generator, dtype=torch.float64)
    for rows in (slice(None), slice(2, 7)):
        actual = torch.autograd.grad((weights[:, :, rows] * factor[:, :, rows]).sum(), leaves, retain_graph=True)
        expected = torch.autograd.grad((exact[:, :, rows] * factor[:, :, rows]).sum(), leaves, retain_graph=True)
        for mine, right in zip(actual, expected, strict=True):
            torch.testing.assert_close(mine, right)


def test_rows_that_see_nothing_are_zero_with_zero_gradient(backend: str) -> None:
    q, k, v = (torch.randn(2, n, 3, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (6, 4, 4))
    weights = rg.inspect(q, k, v, mask=rg.Causal(), backend=backend).weights
    assert torch.equal(weights[:, :2], torch.zeros(2, 2, 4))
    for quantity in (weights[:, :2], weights.entropy()[:, :2]):
        grads = torch.autograd.grad(quantity.sum(), (q, k), retain_graph=True)
        assert all(torch.equal(g, torch.zeros_like(g)) for g in grads)


def test_entropy_with_a_gradient_is_refused_by_a_backend_that_has_none(qkv: Operands) -> None:
    call, lse = make_call(*qkv), rg.inspect(*qkv).lse
    with pytest.raises(rg.UnsupportedError, match=r"backend='torch' cannot do this call: it .*entropy"):
        rg.AttentionWeights(call, lse, backend="torch").entropy()


def test_without_a_gradient_entropy_is_streamed_for_every_backend(qkv: Operands) -> None:
    looked = rg.inspect(*(x.detach() for x in qkv), backend="torch")
    torch.testing.assert_close(looked.weights.entropy(), rg.inspect(*qkv, stats=["entropy"]).stats["entropy"].detach())


def test_what_was_called_without_gradients_gives_none(qkv: Operands, backend: str) -> None:
    with torch.no_grad():
        weights = rg.inspect(*qkv, backend=backend).weights
    assert not any(x.requires_grad for x in (weights[0], weights.dense(), weights.entropy(), weights.max()))


def test_higher_derivatives_through_the_reference(qkv: Operands) -> None:
    q, k, v = (x.detach()[:1, :2, :3].clone().requires_grad_() for x in qkv)

    def squares(q: Tensor, k: Tensor) -> Tensor:
        weights = rg.inspect(q, k, v, mask=rg.Causal(), backend="reference").weights
        return weights[0, 1, 1:].square().sum() + weights.entropy().square().sum()

    assert torch.autograd.gradgradcheck(squares, (q, k))
    direct = torch.autograd.grad(squares(q, k), q)[0]
    torch.testing.assert_close(torch.func.grad(squares)(q, k), direct)

"""The contract fact by fact, on every backend that claims it: what users of other libraries suffer from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard._dispatch import backend, backend_names
from regard.testing.tolerance import assert_close_to_oracle

ALL = backend_names()
CLAIMS = {name: backend(name).capabilities for name in ALL}
BACKWARD = [name for name in ALL if not CLAIMS[name].gradients or "cpu" in CLAIMS[name].gradients]
LSE_BACKWARD = [name for name in BACKWARD if CLAIMS[name].lse_gradient]
SCORES = [name for name in ALL if CLAIMS[name].score_mods]
SINKS = [name for name in ALL if CLAIMS[name].sinks]
DROPOUT = [name for name in ALL if CLAIMS[name].dropout]
FIRST_ORDER = [name for name in BACKWARD if not CLAIMS[name].higher_derivatives]

every = pytest.mark.parametrize("name", ALL)


def operands(
    heads: int = 2, kv_heads: int = 2, q_len: int = 7, k_len: int = 11, width: int = 5, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(batch, heads, q_len, width),
        torch.randn(batch, kv_heads, k_len, width),
        torch.randn(batch, kv_heads, k_len, 3),
    )


def weights(name: str, q_len: int, k_len: int, **arguments: Any) -> Tensor:
    """The weights ``(q_len, k_len)`` for scores of 0, read off the output by one-hot values."""
    q, k = torch.zeros(1, 1, q_len, 4), torch.zeros(1, 1, k_len, 4)
    return rg.attention(q, k, torch.eye(k_len)[None, None], backend=name, **arguments)[0, 0]


def gradients(name: str, tensors: list[Tensor], *, lse: bool, **arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of a random loss of out (and lse, infinite rows too) with respect to ``tensors``, q, k, v first."""
    q, k, v = tensors[:3]
    if lse:
        seen = rg.inspect(q, k, v, backend=name, **arguments)
        outputs = [seen.out, seen.lse]
    else:
        outputs = [rg.attention(q, k, v, backend=name, **arguments)]
    return torch.autograd.grad(outputs, tensors, [torch.randn_like(x) for x in outputs])


# --- masks -----------------------------------------------------------------------------------------------------------


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


# --- rows that see nothing -------------------------------------------------------------------------------------------

EMPTY_ROWS = [
    rg.Nothing(),
    rg.Padding(torch.tensor([0, 11])),
    rg.Causal() & ~rg.Prefix(7),
    rg.Dense(torch.arange(7)[:, None] > torch.tensor([2])),
]
NAMES = ["nothing", "padding of a whole entry", "causal without the prefix", "dense"]


@every
@pytest.mark.parametrize("mask", EMPTY_ROWS, ids=NAMES)
def test_a_row_that_sees_nothing_gives_zero_and_minus_infinity(name: str, mask: rg.Mask) -> None:
    q, k, v = operands()
    empty = ~mask.dense(7, 11, batch=2, heads=2).expand(2, 2, 7, 11).any(-1)
    assert empty.any()
    seen = rg.inspect(q, k, v, mask=mask, backend=name)
    assert (seen.out[empty] == 0).all()
    assert (seen.lse[empty] == -math.inf).all()
    assert seen.lse[~empty].isfinite().all()
    assert (seen.weights.dense()[empty] == 0).all()
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, mask=mask)


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize("mask", EMPTY_ROWS, ids=NAMES)
def test_a_row_that_sees_nothing_has_no_gradient(name: str, mask: rg.Mask) -> None:
    """Not even from a gradient that comes in through its infinite lse."""
    q, k, v = (x.requires_grad_() for x in operands())
    allowed = mask.dense(7, 11, batch=2, heads=2).expand(2, 2, 7, 11)
    dq, dk, dv = gradients(name, [q, k, v], lse=name in LSE_BACKWARD, mask=mask)
    assert (dq[~allowed.any(-1)] == 0).all()
    for grad in (dk, dv):
        assert (grad[~allowed.any(-2)] == 0).all()
    assert all(grad.isfinite().all() for grad in (dq, dk, dv))


@pytest.mark.parametrize("name", SINKS)
def test_with_a_sink_an_empty_row_has_the_sinks_lse(name: str) -> None:
    q, k, v = operands()
    sinks = torch.tensor([0.7, -1.3])
    seen = rg.inspect(q, k, v, mask=rg.Nothing(), sinks=sinks, backend=name)
    assert (seen.out == 0).all()
    torch.testing.assert_close(seen.lse, sinks[:, None].expand(2, 2, 7))


@pytest.mark.parametrize("name", [name for name in SINKS if name in LSE_BACKWARD])
def test_with_a_sink_only_the_sinks_share_of_an_empty_row_has_a_gradient(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in operands())
    sinks = torch.tensor([0.7, -1.3], requires_grad=True)
    seen = rg.inspect(q, k, v, mask=rg.Nothing(), sinks=sinks, backend=name)
    dlse = torch.randn(2, 2, 7)
    *rest, dsinks = torch.autograd.grad([seen.out, seen.lse], [q, k, v, sinks], [torch.randn_like(seen.out), dlse])
    assert all((grad == 0).all() for grad in rest)
    torch.testing.assert_close(dsinks, dlse.sum((0, 2)))


@pytest.mark.parametrize("name", SCORES)
def test_a_row_whose_every_visible_score_is_minus_infinity_sees_nothing(name: str) -> None:
    q, k, v = operands()
    bias = torch.zeros(7, 11)
    bias[3, :5] = -math.inf
    seen = rg.inspect(q, k, v, mask=rg.Prefix(5), score_mod=rg.Bias(bias), backend=name)
    assert (seen.out[:, :, 3] == 0).all()
    assert (seen.lse[:, :, 3] == -math.inf).all()
    others = [0, 1, 2, 4, 5, 6]
    assert seen.out[:, :, others].all()


@pytest.mark.parametrize("name", [name for name in SCORES if name in LSE_BACKWARD])
def test_a_row_whose_every_visible_score_is_minus_infinity_has_no_gradient(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in operands())
    bias = torch.zeros(7, 11)
    bias[3, :5] = -math.inf
    bias.requires_grad_()
    mods = [rg.Softcap(20.0), rg.Bias(bias)]
    dq, dk, dv, dbias = gradients(name, [q, k, v, bias], lse=True, mask=rg.Prefix(5), score_mod=mods)
    assert (dq[:, :, 3] == 0).all()
    assert (dbias[3] == 0).all()
    assert all(grad.isfinite().all() for grad in (dq, dk, dv, dbias))
    assert dbias[4, :5].all()


@every
@pytest.mark.parametrize(("q_len", "k_len"), [(0, 3), (3, 0), (0, 0)])
def test_lengths_of_zero(name: str, q_len: int, k_len: int) -> None:
    q, k, v = operands(q_len=q_len, k_len=k_len)
    if name == "flex":
        with pytest.raises(rg.UnsupportedError, match="takes no empty tensors"):
            rg.attention(q, k, v, backend=name)
        return
    seen = rg.inspect(q, k, v, backend=name)
    assert seen.out.shape == (2, 2, q_len, 3)
    assert (seen.out == 0).all()
    assert (seen.lse == -math.inf).all()


# --- what is hidden stays hidden -------------------------------------------------------------------------------------

HIDING = [
    rg.Prefix(6),
    rg.Padding(torch.tensor([6, 3])),
    rg.Padding.from_valid(torch.arange(11).expand(2, 11) < 6),
    rg.Document(torch.tensor([5, 5, 5, 5, 1, 1, 5, 5, 5, 5, 5])) & rg.Prefix(6),
    rg.Dense((torch.arange(11) < 6).expand(7, 11)),
    rg.Predicate(lambda b, h, q, k: (k < 6) & (q > k)),
]


@every
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mask", HIDING, ids=repr)
def test_a_key_that_nobody_sees_reaches_nothing(name: str, odd: float, mask: rg.Mask) -> None:
    q, k, v = operands()
    k[:, :, 6:], v[:, :, 6:] = odd, odd
    seen = rg.inspect(q, k, v, mask=mask, backend=name)
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, mask=mask)
    if name in BACKWARD:
        q, k, v = (x.requires_grad_() for x in (q, k, v))
        grads = gradients(name, [q, k, v], lse=name in LSE_BACKWARD, mask=mask)
        assert all(grad.isfinite().all() for grad in grads)
        assert all((grad[:, :, 6:] == 0).all() for grad in grads[1:])


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_bias_at_a_hidden_pair_reaches_nothing(name: str, odd: float) -> None:
    q, k, v = operands()
    clean = torch.randn(7, 11)
    bias = clean.masked_fill(~rg.Causal().dense(7, 11)[0, 0], odd)
    mods: list[rg.ScoreModification] = [rg.Bias(bias), rg.Softcap(5.0)]
    seen = rg.inspect(q, k, v, mask=rg.Causal(), score_mod=mods, backend=name)
    torch.testing.assert_close(
        seen.out, rg.attention(q, k, v, mask=rg.Causal(), score_mod=[rg.Bias(clean), mods[1]], backend=name)
    )
    if name in LSE_BACKWARD:
        q, k, v, bias = (x.requires_grad_() for x in (q, k, v, bias))
        grads = gradients(name, [q, k, v, bias], lse=True, mask=rg.Causal(), score_mod=[rg.Bias(bias), mods[1]])
        assert all(grad.isfinite().all() for grad in grads)
        assert (grads[3][~rg.Causal().dense(7, 11)[0, 0]] == 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_a_function_that_is_odd_at_hidden_pairs_reaches_nothing(name: str) -> None:
    """``sqrt(q - k)`` is NaN for keys of the future, and its derivative infinite at the hidden present."""
    q, k, v = operands()
    slope = torch.tensor(0.3)

    def rooted(s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return s - torch.sqrt(slope * (q - k)) + torch.where(q > k, 0.0, math.inf)

    mask = rg.Causal() & ~rg.SlidingWindow(0)
    seen = rg.inspect(q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted), backend=name)
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted))
    if name in LSE_BACKWARD:
        tensors = [x.requires_grad_() for x in (q, k, v, slope)]
        seen = rg.inspect(q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted), backend=name)
        dout, dlse = torch.randn_like(seen.out), torch.randn_like(seen.lse)
        grads = torch.autograd.grad([seen.out, seen.lse], tensors, [dout, dlse])
        names = ["q", "k", "v", "slope"]
        assert_close_to_oracle(
            {f"d{n}": g for n, g in zip(names, grads, strict=True)},
            q, k, v, mask=mask, score_mod=rg.ScoreMod(rooted), dout=dout, dlse=dlse,
            wrt=dict(zip(names, tensors, strict=True)),
        )  # fmt: skip


# --- heads and shapes ------------------------------------------------------------------------------------------------


@every
def test_query_head_h_reads_key_head_h_over_group(name: str) -> None:
    """Blocks of query heads share a key head; they are not dealt out in turn."""
    q, k = torch.randn(1, 6, 3, 4), torch.randn(1, 2, 5, 4)
    v = torch.tensor([10.0, 20.0])[None, :, None, None].expand(1, 2, 5, 1)
    out = rg.attention(q, k, v, backend=name)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([10.0, 10, 10, 20, 20, 20]))


@every
def test_masks_count_query_heads(name: str) -> None:
    q, k, v = operands(heads=6, kv_heads=2)
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
    q, k, v = (x[0] if dims == 3 else x[0, 0] for x in operands())
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
    q, k, v = operands()
    k, v = (k, v[:, :, :-2]) if longer == "k" else (k[:, :, :-2], v)
    with pytest.raises(rg.ShapeError, match="k and v must have the same number of tokens"):
        rg.attention(q, k, v, backend=name)


@every
def test_nothing_is_read_beyond_the_operands(name: str) -> None:
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
    tensors = list(operands())
    lengths = torch.tensor([4, 11])
    before = [x.clone() for x in tensors]
    versions = [x._version for x in tensors]
    rg.inspect(*tensors, mask=rg.Padding(lengths) & rg.Causal(), backend=name)
    assert [x._version for x in tensors] == versions
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
    assert lengths.tolist() == [4, 11]


# --- numbers ---------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_lse_is_the_natural_log_in_the_accumulation_dtype(name: str, dtype: torch.dtype) -> None:
    q, k, v = (torch.zeros(1, 1, n, 4, dtype=dtype) for n in (2, 7, 7))
    seen = rg.inspect(q, k, v, backend=name)
    assert seen.out.dtype == dtype
    assert seen.lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(seen.lse, torch.full_like(seen.lse, math.log(7)))


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_accumulates_in_float32(name: str, dtype: torch.dtype) -> None:
    """Counting 3,001 ones in bfloat16 would stop at 256, in float16 at 2,048."""
    q, k, v = (torch.zeros(1, 1, 1, 4, dtype=dtype), torch.zeros(1, 1, 3001, 4, dtype=dtype), torch.ones(1, 1, 3001, 4))
    seen = rg.inspect(q, k, v.to(dtype), backend=name)
    assert (seen.out == 1).all()
    torch.testing.assert_close(seen.lse.exp(), torch.full_like(seen.lse, 3001), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", BACKWARD)
def test_low_precision_gradients_accumulate_in_float32(name: str) -> None:
    q, k = torch.zeros(1, 1, 3001, 4, dtype=torch.bfloat16), torch.zeros(1, 1, 1, 4, dtype=torch.bfloat16)
    v = torch.ones(1, 1, 1, 4, dtype=torch.bfloat16, requires_grad=True)
    rg.attention(q, k, v, backend=name).backward(torch.ones(1, 1, 3001, 4, dtype=torch.bfloat16))
    assert v.grad is not None
    torch.testing.assert_close(v.grad.float(), torch.full((1, 1, 1, 4), 3001.0), rtol=2**-8, atol=0)


@every
def test_large_scores_do_not_overflow(name: str) -> None:
    q, k, v = (100 * x for x in operands())
    seen = rg.inspect(q, k, v, scale=10.0, backend=name)
    assert seen.out.isfinite().all()
    assert_close_to_oracle({"out": seen.out, "lse": seen.lse}, q, k, v, scale=10.0)


@every
def test_the_scale_is_one_over_the_root_of_the_features(name: str) -> None:
    q, k, v = operands(width=16)
    torch.testing.assert_close(
        rg.attention(q, k, v, backend=name), rg.attention(q, k, v, scale=0.25, backend="reference")
    )


@pytest.mark.parametrize("name", SCORES)
def test_score_changes_apply_in_the_given_order(name: str) -> None:
    q, k, v = operands(heads=3, kv_heads=3)
    cap, alibi = rg.Softcap(0.5), rg.Alibi.for_heads(3)
    outs = [rg.attention(q, k, v, score_mod=mods, backend=name) for mods in ([cap, alibi], [alibi, cap])]
    assert not torch.allclose(outs[0], outs[1])
    for out, mods in zip(outs, ([cap, alibi], [alibi, cap]), strict=True):
        assert_close_to_oracle(out, q, k, v, score_mod=mods)


@every
def test_autocast_casts_the_operands(name: str) -> None:
    q, k, v = operands()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = rg.inspect(q, k, v, mask=rg.Causal(), backend=name)
        weights = seen.weights.dense()
    assert seen.out.dtype == torch.bfloat16
    low = rg.inspect(*(x.bfloat16() for x in (q, k, v)), mask=rg.Causal(), backend=name)
    assert torch.equal(seen.out, low.out)
    assert torch.equal(seen.lse, low.lse)
    assert torch.equal(weights, low.weights.dense())


@pytest.mark.parametrize("name", BACKWARD)
def test_autocast_returns_gradients_in_the_dtype_of_the_operands(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in operands())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = rg.attention(q, k, v, backend=name)
    out.float().sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.float32 for x in (q, k, v))


# --- determinism and derivatives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reference", "blockwise"])
def test_the_same_call_gives_the_same_bits(name: str) -> None:
    bias = torch.randn(4, 1, 150, requires_grad=True)
    q, k, v = (x.requires_grad_() for x in operands(heads=4, kv_heads=2, q_len=130, k_len=150))

    def bits() -> list[Tensor]:
        torch.manual_seed(5)
        mask = rg.Causal() | rg.Dilated(7)
        seen = rg.inspect(q, k, v, mask=mask, score_mod=rg.Bias(bias), dropout_p=0.2, backend=name)
        grads = torch.autograd.grad([seen.out, seen.lse], [q, k, v, bias], [seen.out.cos(), seen.lse.cos()])
        return [seen.out, seen.lse, *grads]

    assert all(torch.equal(x, y) for x, y in zip(bits(), bits(), strict=True))


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_a_second_derivative_is_refused_and_names_the_reference(name: str) -> None:
    q, k, v = (x.requires_grad_() for x in operands())
    out = rg.attention(q, k, v, mask=rg.Causal(), backend=name)
    (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(rg.UnsupportedError, match='backend="reference"'):
        torch.autograd.grad(dq.sum(), k)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, in jvp
@pytest.mark.parametrize("name", [name for name in ALL if not CLAIMS[name].higher_derivatives])
def test_forward_mode_and_vmap_are_refused_and_name_the_reference(name: str) -> None:
    q, k, v = operands()
    with pytest.raises(rg.UnsupportedError, match='backend="reference"'):
        torch.func.jvp(lambda q: rg.attention(q, k, v, backend=name), (q,), (q,))
    with pytest.raises(rg.UnsupportedError, match='backend="reference"'):
        torch.func.vmap(lambda q, k, v: rg.attention(q, k, v, backend=name))(q, k, v)


@every
def test_a_backend_asked_for_is_used_or_refused(name: str) -> None:
    q, k, v = operands()
    for claimed, argument, word in (
        (CLAIMS[name].dropout, {"dropout_p": 0.5}, "dropout"),
        (CLAIMS[name].sinks, {"sinks": torch.zeros(2)}, "sinks"),
        (CLAIMS[name].score_mods, {"score_mod": rg.Softcap(3.0)}, "score change"),
    ):
        arguments: Any = argument
        if claimed:
            assert rg.attention(q, k, v, backend=name, **arguments).isfinite().all()
        else:
            with pytest.raises(rg.UnsupportedError, match=f"backend='{name}' cannot do this call: .*{word}"):
                rg.attention(q, k, v, backend=name, **arguments)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(rg.ArgumentError, match="backend must be one of 'torch', 'flex', 'blockwise', 'reference'"):
        rg.attention(*operands(), backend="fastest")

"""torch's kernels are told exactly what the mask means, and what they do differently is mended around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import regard as rg
from regard._call import Call, make_call
from regard.backends.base import Capabilities
from regard.backends.torch import TorchKernels
from regard.testing.tolerance import assert_close_to_oracle

BATCH, HEADS, KV_HEADS = 2, 6, 2


def operands(q_len: int = 13, k_len: int = 19, width: int = 7, value_width: int = 5, **options: Any) -> list[Tensor]:
    shapes = ((HEADS, q_len, width), (KV_HEADS, k_len, width), (KV_HEADS, k_len, value_width))
    return [torch.randn(BATCH, *shape, **options) for shape in shapes]


def call(mask: rg.Mask | None = None, q_len: int = 13, k_len: int = 19, **options: Any) -> Call:
    return make_call(*operands(q_len, k_len), mask=mask, **options)


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What reaches `F.scaled_dot_product_attention`, call by call."""
    calls: list[dict[str, Any]] = []
    real: Callable[..., Tensor] = F.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        calls.append({"q": q, "k": k, "v": v, **options})
        return real(q, k, v, **options)

    monkeypatch.setattr("regard.backends.torch._fused", spy)
    return calls


class TestWhatTheKernelIsTold:
    @pytest.mark.parametrize(
        ("mask", "q_len", "k_len", "shape", "causal", "rows"),
        [
            (None, 13, 19, None, False, 13),
            (rg.Causal(), 19, 19, None, True, 19),
            (rg.Causal(), 1, 19, None, False, 1),
            (rg.Causal(), 23, 19, None, True, 19),
            (rg.Causal(), 13, 19, (1, 1, 13, 19), False, 13),
            (rg.Padding(torch.tensor([3, 19])), 13, 19, (2, 1, 1, 19), False, 13),
            (rg.Padding.from_valid(torch.arange(19).remainder(3)[None] > 0), 13, 19, (1, 1, 1, 19), False, 13),
            (rg.Prefix(5), 13, 19, (1, 1, 1, 19), False, 13),
            (rg.Dense(torch.eye(13, 19, dtype=torch.bool)), 13, 19, (1, 1, 13, 19), False, 13),
            (rg.SlidingWindow(3), 13, 19, (1, 1, 13, 19), False, 13),
        ],
        ids=repr,
    )
    def test_masks(
        self,
        kernel_calls: list[dict[str, Any]],
        mask: rg.Mask | None,
        q_len: int,
        k_len: int,
        shape: tuple[int, ...] | None,
        causal: bool,
        rows: int,
    ) -> None:
        q, k, v = operands(q_len, k_len)
        out = rg.attention(q, k, v, mask=mask, backend="torch")
        (told,) = kernel_calls
        assert (None if told["attn_mask"] is None else tuple(told["attn_mask"].shape)) == shape
        assert told["is_causal"] is causal
        assert told["q"].shape[2] == rows
        assert_close_to_oracle(out, q, k, v, mask=mask)

    def test_a_mask_is_bool_and_leaves_no_row_empty(self, kernel_calls: list[dict[str, Any]]) -> None:
        nothing_in_row_3 = rg.Dense(torch.ones(13, 19, dtype=torch.bool).index_fill(0, torch.tensor([3]), False))
        rg.attention(*operands(), mask=nothing_in_row_3, backend="torch")
        mask = kernel_calls[0]["attn_mask"]
        assert mask.dtype == torch.bool
        assert mask.any(-1).all()

    def test_operands_have_one_width_and_unit_stride(self, kernel_calls: list[dict[str, Any]]) -> None:
        q, k, v = operands()
        strided = [x.mT.contiguous().mT for x in (q, k, v)]
        rg.attention(*strided, backend="torch")
        (told,) = kernel_calls
        assert {told[name].shape[3] for name in "qkv"} == {7}
        assert {told[name].stride(3) for name in "qkv"} == {1}

    def test_values_wider_than_keys(self) -> None:
        q, k, v = operands(width=3, value_width=11)
        assert_close_to_oracle(rg.attention(q, k, v, backend="torch"), q, k, v)

    def test_explicit_positions_are_no_causal_flag(self, kernel_calls: list[dict[str, Any]]) -> None:
        q, k, v = operands(19, 19)
        where: dict[str, Any] = {"q_positions": torch.randperm(19), "k_positions": torch.randperm(19)}
        out = rg.attention(q, k, v, mask=rg.Causal(), **where, backend="torch")
        assert kernel_calls[0]["is_causal"] is False
        assert_close_to_oracle(out, q, k, v, mask=rg.Causal(), **where)

    @pytest.mark.parametrize("scale", [0.0, -0.7])
    def test_a_scale_that_is_not_positive(self, scale: float) -> None:
        q, k, v = operands(19, 19, requires_grad=True)
        out = rg.attention(q, k, v, mask=rg.Causal(), scale=scale, backend="torch")
        dout = torch.randn_like(out)
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), dout)
        found = {"out": out, "dq": dq, "dk": dk, "dv": dv}
        assert_close_to_oracle(found, q, k, v, mask=rg.Causal(), scale=scale, dout=dout)


class TestWhatNobodySees:
    def test_reaches_no_output_and_no_gradient(self) -> None:
        allowed = torch.rand(BATCH, HEADS, 13, 19) > 0.3
        allowed[:, :, 4] = False
        allowed[..., 6] = False
        mask = rg.Dense(allowed)
        q, k, v = operands()
        clean = [x.clone().requires_grad_() for x in (q, k, v)]
        q[:, :, 4], k[:, :, 6], v[:, :, 6] = torch.nan, torch.nan, torch.inf
        dirty = [x.requires_grad_() for x in (q, k, v)]
        dout = torch.randn(BATCH, HEADS, 13, 5)
        results = []
        for tensors in (clean, dirty):
            out = rg.attention(*tensors, mask=mask, backend="torch")
            results.append((out, *torch.autograd.grad(out, tensors, dout)))
        for right, found in zip(*results, strict=True):
            assert torch.equal(right, found)
        out, dq, dk, dv = results[1]
        for hidden in (out[:, :, 4], dq[:, :, 4], dk[:, :, 6], dv[:, :, 6]):
            assert not hidden.any()

    def test_more_queries_than_keys(self) -> None:
        q, k, v = operands(23, 19)
        q[:, :, :4] = torch.nan
        q.requires_grad_()
        out = rg.attention(q, k, v, mask=rg.Causal(), backend="torch")
        (dq,) = torch.autograd.grad(out.sum(), q)
        assert not out[:, :, :4].any()
        assert not dq[:, :, :4].any()
        assert out.isfinite().all()

    @pytest.mark.parametrize("sizes", [(0, 19), (13, 0), (0, 0)])
    def test_no_tokens(self, sizes: tuple[int, int]) -> None:
        q, k, v = operands(*sizes, requires_grad=True)
        out = rg.attention(q, k, v, mask=rg.Causal(), backend="torch")
        assert out.shape == (BATCH, HEADS, sizes[0], 5)
        assert not out.any()
        assert not any(grad.any() for grad in torch.autograd.grad(out.sum(), (q, k, v)))


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("mask", [None, rg.Causal(), rg.Causal() & rg.Prefix(83)], ids=repr)
    def test_out_lse_and_gradients(self, dtype: torch.dtype, mask: rg.Mask | None) -> None:
        q, k, v = (x.requires_grad_() for x in operands(131, 131, 33, 17, dtype=dtype))
        out = rg.attention(q, k, v, mask=mask, backend="torch")
        dout = torch.randn_like(out)
        dq, dk, dv = torch.autograd.grad(out, (q, k, v), dout)
        with torch.no_grad():
            lse = TorchKernels().run(make_call(q, k, v, mask=mask).with_(wants_lse=True)).lse
        assert lse is not None
        found = {"out": out, "lse": lse, "dq": dq, "dk": dk, "dv": dv}
        assert_close_to_oracle(found, q, k, v, mask=mask, dout=dout)

    def test_autocast(self) -> None:
        q, k, v = operands()
        with torch.autocast("cpu", torch.bfloat16):
            out = rg.attention(q, k, v, backend="torch")
        rounded = [x.bfloat16() for x in (q, k, v)]
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, rg.attention(*rounded, backend="torch"))

    def test_lse_of_a_row_that_sees_nothing(self) -> None:
        mask = rg.Causal() & rg.Padding(torch.tensor([0, 19]))
        result = TorchKernels().run(call(mask).with_(wants_lse=True))
        assert result.lse is not None
        assert (result.lse[0] == -torch.inf).all()
        assert result.lse[1].isfinite().all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"score_mod": rg.Softcap(3.0)}, r"takes no score changes, and the call has Softcap\(3.0\)"),
            ({"sinks": torch.zeros(HEADS)}, "takes no sinks"),
            ({"dropout_p": 0.5}, "dropout_p=0.5"),
        ],
    )
    def test_by_name(self, options: dict[str, Any], reason: str) -> None:
        with pytest.raises(rg.UnsupportedError, match=reason):
            rg.attention(*operands(), **options, backend="torch")

    def test_gradient_through_lse(self) -> None:
        wanted = make_call(*operands(requires_grad=True)).with_(wants_lse=True)
        assert TorchKernels().unsupported(wanted) == ["has no gradient through lse, and the call may want one"]
        with torch.no_grad():
            assert TorchKernels().unsupported(wanted) == []

    def test_lse_elsewhere(self) -> None:
        wanted = call().with_(wants_lse=True, q=torch.empty(BATCH, HEADS, 13, 7, device="meta"))
        assert TorchKernels().unsupported(wanted) == ["returns lse on cpu only, and the tensors are on meta"]

    def test_statistics(self) -> None:
        wanted = call().with_(stats=("entropy",))
        assert TorchKernels().unsupported(wanted) == ["does not compute entropy in the same pass"]

    def test_a_second_derivative(self) -> None:
        q, k, v = operands(requires_grad=True)
        out = rg.attention(q, k, v, backend="torch")
        (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
        with pytest.raises(rg.UnsupportedError, match='backend="reference"'):
            torch.autograd.grad(dq.sum(), q)

    def test_several_first_derivatives_at_once(self) -> None:
        q, k, v = operands(requires_grad=True)
        out = rg.attention(q, k, v, backend="torch")
        douts = torch.randn(3, *out.shape)
        (together,) = torch.autograd.grad(out, q, douts, is_grads_batched=True, retain_graph=True)
        for dq, dout in zip(together, douts, strict=True):
            torch.testing.assert_close(dq, torch.autograd.grad(out, q, dout, retain_graph=True)[0])

    def test_declares_what_it_refuses(self) -> None:
        can = TorchKernels.capabilities
        assert can == Capabilities(score_mods=False, sinks=False, dropout=False, lse_gradient=False, stats=())


class TestAdvice:
    """Where building a dense mask would be the wrong thing to do by itself."""

    @pytest.mark.parametrize(
        ("mask", "length", "advised"),
        [
            (rg.SlidingWindow(3), 512, True),
            (rg.SlidingWindow(3), 521, False),
            (rg.Causal(), 4099, True),
            (rg.Padding(torch.tensor([3, 5])), 4099, True),
            (rg.Padding(torch.tensor([3, 5])) & ~rg.Prefix(2), 4099, True),
            (rg.Causal() & rg.Padding(torch.tensor([3, 5])), 4099, False),
            (rg.Dense(torch.ones(1, 1, dtype=torch.bool).expand(4099, 4099)), 4099, True),
        ],
        ids=repr,
    )
    def test_by_form_and_size(self, mask: rg.Mask, length: int, advised: bool) -> None:
        reasons = TorchKernels().discouraged(call(mask, length, length))
        expected = [] if advised else [f"would build a dense {length} x {length} mask and skip nothing"]
        assert reasons == expected

    def test_bytes_of_the_mask_it_builds(self) -> None:
        made = make_call(*operands(521, 521, 8, 8), mask=rg.Causal() & rg.Prefix(3))
        assert TorchKernels().extra_bytes(made) == 521 * 521 * (1 + 4)
        assert TorchKernels().extra_bytes(make_call(*operands(521, 521, 8, 8), mask=rg.Causal())) == 0

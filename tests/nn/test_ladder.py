"""Each rung equals the next one and the engine, with tied weights: outputs and every gradient, in float64."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import regard as rg


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()


def assert_same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-12)


def gradients(out: Tensor, of: Sequence[Tensor]) -> tuple[Tensor, ...]:
    cotangent = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(5))
    return torch.autograd.grad(out, of, cotangent)


def assert_equal_with_gradients(left: Tensor, lefts: Sequence[Tensor], right: Tensor, rights: Sequence[Tensor]) -> None:
    assert_same(left, right)
    for one, other in zip(gradients(left, lefts), gradients(right, rights), strict=True):
        assert_same(one, other)


def linears(module: nn.Module, *names: str) -> list[Tensor]:
    return [p for name in names for p in module.get_submodule(name).parameters()]


QKV = ("W_query", "W_key", "W_value")


def test_simple_is_the_engine_and_v1_with_identity_matrices(x: Tensor) -> None:
    simple = rg.nn.SimpleSelfAttention()
    assert_equal_with_gradients(simple(x), [x], torch.softmax(x @ x.mT, -1) @ x, [x])
    heads = x[:, None]
    assert_equal_with_gradients(simple(x), [x], rg.attention(heads, heads, heads, scale=1.0)[:, 0], [x])

    v1 = rg.nn.SelfAttentionV1(5, 5).double()
    with torch.no_grad():
        v1.W_query.copy_(math.sqrt(5) * torch.eye(5, dtype=torch.float64))
        v1.W_key.copy_(torch.eye(5))
        v1.W_value.copy_(torch.eye(5))
    assert_equal_with_gradients(simple(x), [x], v1(x), [x])


def test_v1_is_v2_with_transposed_matrices(x: Tensor) -> None:
    torch.manual_seed(7)
    v2 = rg.nn.SelfAttentionV2(5, 3).double()
    v1 = rg.nn.SelfAttentionV1(5, 3).double()
    with torch.no_grad():
        for name in QKV:
            v1.get_parameter(name).copy_(v2.get_parameter(f"{name}.weight").T)
    out, other = v1(x), v2(x)
    assert_same(out, other)
    ours = gradients(out, [x, v1.W_query, v1.W_key, v1.W_value])
    theirs = gradients(other, [x, v2.W_query.weight, v2.W_key.weight, v2.W_value.weight])
    assert_same(ours[0], theirs[0])
    for one, transposed in zip(ours[1:], theirs[1:], strict=True):
        assert_same(one, transposed.T)


def test_v2_is_the_engine(x: Tensor) -> None:
    torch.manual_seed(7)
    v2 = rg.nn.SelfAttentionV2(5, 3, qkv_bias=True).double()
    q, k, v = ((x @ layer.weight.T + layer.bias)[:, None] for layer in (v2.W_query, v2.W_key, v2.W_value))
    wanted = [x, *linears(v2, *QKV)]
    assert_equal_with_gradients(v2(x), wanted, rg.attention(q, k, v)[:, 0], wanted)


def test_row_t_of_causal_attention_is_the_last_row_of_v2_on_the_first_t_tokens(x: Tensor) -> None:
    torch.manual_seed(7)
    v2 = rg.nn.SelfAttentionV2(5, 3, qkv_bias=True).double()
    causal = rg.nn.CausalAttention(5, 3, 7, 0.0, qkv_bias=True).double()
    causal.load_state_dict(v2.state_dict())
    grown = torch.stack([v2(x[:, : t + 1])[:, -1] for t in range(7)], 1)
    assert_equal_with_gradients(causal(x), [x, *linears(causal, *QKV)], grown, [x, *linears(v2, *QKV)])


def test_causal_attention_is_the_engine_with_causal(x: Tensor) -> None:
    torch.manual_seed(7)
    causal = rg.nn.CausalAttention(5, 3, 7, 0.0).double()
    q, k, v = (layer(x)[:, None] for layer in (causal.W_query, causal.W_key, causal.W_value))
    wanted = [x, *linears(causal, *QKV)]
    assert_equal_with_gradients(causal(x), wanted, rg.attention(q, k, v, mask=rg.Causal())[:, 0], wanted)


def test_a_wrapper_of_one_head_is_causal_attention(x: Tensor) -> None:
    torch.manual_seed(7)
    wrapper = rg.nn.MultiHeadAttentionWrapper(5, 3, 7, 0.0, 1, qkv_bias=True).double()
    causal = rg.nn.CausalAttention(5, 3, 7, 0.0, qkv_bias=True).double()
    causal.load_state_dict(wrapper.heads[0].state_dict())
    assert_equal_with_gradients(wrapper(x), [x, *wrapper.parameters()], causal(x), [x, *causal.parameters()])


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_wrapper_is_multi_head_with_stacked_matrices_and_an_identity_projection(x: Tensor, qkv_bias: bool) -> None:
    torch.manual_seed(7)
    heads, width = 3, 2
    wrapper = rg.nn.MultiHeadAttentionWrapper(5, width, 7, 0.0, heads, qkv_bias=qkv_bias).double()
    multi = rg.nn.MultiHeadAttention(5, heads * width, 7, 0.0, heads, qkv_bias=qkv_bias, out_bias=False).double()

    def stacked(name: str) -> Tensor:
        return torch.cat([head.get_parameter(name) for head in wrapper.heads])

    names = [f"{layer}.{part}" for layer in QKV for part in (["weight", "bias"] if qkv_bias else ["weight"])]
    with torch.no_grad():
        for name in names:
            multi.get_parameter(name).copy_(stacked(name))
        multi.out_proj.weight.copy_(torch.eye(heads * width))

    out, other = multi(x), wrapper(x)
    assert_same(out, other)
    ours = gradients(out, [x, *(multi.get_parameter(name) for name in names)])
    parts = [head.get_parameter(name) for name in names for head in wrapper.heads]
    theirs = gradients(other, [x, *parts])
    assert_same(ours[0], theirs[0])
    for n, one in enumerate(ours[1:]):
        assert_same(one, torch.cat(theirs[1 + n * heads : 1 + (n + 1) * heads]))


def test_multi_head_of_one_head_that_sees_everything_is_v2(x: Tensor) -> None:
    torch.manual_seed(7)
    v2 = rg.nn.SelfAttentionV2(5, 3).double()
    multi = rg.nn.MultiHeadAttention(5, 3, 7, 0.0, 1, mask=rg.Everything(), out_bias=False).double()
    with torch.no_grad():
        for name in QKV:
            multi.get_parameter(f"{name}.weight").copy_(v2.get_parameter(f"{name}.weight"))
        multi.out_proj.weight.copy_(torch.eye(3))
    assert_equal_with_gradients(multi(x), [x, *linears(multi, *QKV)], v2(x), [x, *linears(v2, *QKV)])


def test_a_linear_layer_is_x_times_its_transposed_matrix_plus_bias(x: Tensor) -> None:
    torch.manual_seed(7)
    layer = nn.Linear(5, 3).double()
    assert layer.weight.shape == (3, 5)
    wanted = [x, layer.weight, layer.bias]
    assert_equal_with_gradients(layer(x), wanted, x @ layer.weight.T + layer.bias, wanted)

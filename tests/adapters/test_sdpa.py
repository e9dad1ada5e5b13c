"""The drop-in for torch's scaled_dot_product_attention, held to torch's own mathematical path."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import regard as rg
from regard.adapters.sdpa import scaled_dot_product_attention

LEADS: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3), (2, 3), (2, 3)),
    ((3,), (3,), (3,)),
    ((), (), ()),
    ((2, 3), (), ()),
    ((2, 3), (2, 1), (2, 1)),
    ((2, 1), (2, 3), (2, 3)),
    ((2, 3), (2, 1), (2, 3)),
    ((2, 3), (1, 3), (3,)),
    ((2, 1, 3), (5, 3), (3,)),
]
GROUPED: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
    ((2, 6), (2, 3), (2, 3)),
    ((2, 6), (2, 2), (2, 3)),
    ((6,), (2,), (2,)),
]


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[Tensor], dict[str, Any]]:
    grouped = draw(st.booleans())
    leads = draw(st.sampled_from(GROUPED if grouped else LEADS))
    q_len, k_len, features, v_features = (draw(st.integers(1, 7)) for _ in range(4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    q = random(*leads[0], q_len, features)
    k = random(*leads[1], k_len, features)
    v = random(*leads[2], k_len, v_features)
    leaves = [q, k, v]
    arguments: dict[str, Any] = {"enable_gqa": grouped, "scale": draw(st.sampled_from([None, 0.3]))}
    kind = draw(st.sampled_from(["none", "causal", "bool", "float", "infinite"]))
    if kind == "causal":
        arguments["is_causal"] = True
    elif kind != "none":
        full = torch.broadcast_shapes(*leads) if not grouped else leads[0]
        own = draw(st.sampled_from([(), full, tuple(1 for _ in full)]))
        mask = random(*own, draw(st.sampled_from([1, q_len])), k_len)
        visible = mask > -0.5
        visible[..., 0] = True
        if kind == "bool":
            mask = visible
        else:
            leaves.append(mask := mask.masked_fill(~visible, -torch.inf) if kind == "infinite" else mask)
        arguments["attn_mask"] = mask
    for leaf in leaves:
        leaf.requires_grad_()
    return leaves, arguments


@settings(max_examples=300)
@given(calls())
def test_values_and_gradients_are_torchs(call: tuple[list[Tensor], dict[str, Any]]) -> None:
    leaves, arguments = call
    q, k, v = leaves[:3]
    out = scaled_dot_product_attention(q, k, v, **arguments)
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(q, k, v, **arguments)
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(out)
    got = torch.autograd.grad((out * weights).sum(), leaves)
    torch.testing.assert_close(got, torch.autograd.grad((expected * weights).sum(), leaves))


def test_the_signature_is_torchs() -> None:
    # torch's function is built in and keeps its signature in the first line of its documentation.
    parameters = inspect.signature(scaled_dot_product_attention).parameters.values()
    said = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters)
    doc = " ".join(str(F.scaled_dot_product_attention.__doc__).split())
    assert f"scaled_dot_product_attention({said})" in doc


def test_a_causal_mask_is_aligned_at_the_top_left() -> None:
    q, k, v = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 7, 4), torch.randn(1, 2, 7, 4)
    out = scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(out[:, :, 0], v[:, :, 0])
    torch.testing.assert_close(out, rg.attention(q, k[:, :, :3], v[:, :, :3], mask=rg.Causal()))


@pytest.mark.parametrize("infinite", [False, True])
def test_a_query_that_may_attend_to_nothing_gives_zero(infinite: bool) -> None:
    leaves = [x.requires_grad_() for x in torch.randn(3, 1, 2, 5, 4).unbind()]
    allowed = torch.ones(5, 5, dtype=torch.bool)
    allowed[3] = False
    mask = torch.zeros(5, 5).masked_fill(~allowed, -torch.inf) if infinite else allowed
    out = scaled_dot_product_attention(leaves[0], leaves[1], leaves[2], attn_mask=mask)
    assert torch.equal(out[:, :, 3], torch.zeros(1, 2, 4))
    gradients = torch.autograd.grad(out.sum(), leaves)
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert torch.equal(gradients[0][:, :, 3], torch.zeros(1, 2, 4))


def test_dropout_drops_what_regard_drops() -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4).unbind()
    torch.manual_seed(3)
    out = scaled_dot_product_attention(q, k, v, dropout_p=0.4)
    torch.manual_seed(3)
    assert torch.equal(out, rg.attention(q, k, v, dropout_p=0.4))


@pytest.mark.parametrize("masked", [False, True])
def test_it_compiles_into_one_graph(masked: bool) -> None:
    torch.compiler.reset()
    q, k, v = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 7, 4), torch.randn(1, 2, 7, 4)
    arguments: dict[str, Any] = {"attn_mask": torch.rand(5, 7) < 0.6} if masked else {"is_causal": True}
    compiled = torch.compile(scaled_dot_product_attention, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(q, k, v, **arguments), scaled_dot_product_attention(q, k, v, **arguments))


def test_it_is_taken_in_place_of_torchs_function(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    x = torch.randn(2, 5, 12)
    expected, _ = layer(x, x, x, need_weights=False)
    monkeypatch.setattr(F, "scaled_dot_product_attention", scaled_dot_product_attention)
    out, _ = layer(x, x, x, need_weights=False)
    torch.testing.assert_close(out, expected)


Q, K = torch.zeros(2, 4, 5, 8), torch.zeros(2, 2, 7, 8)


@pytest.mark.parametrize(
    ("operands", "arguments", "error", "message"),
    [
        ((Q, Q, Q), {"is_causal": True, "attn_mask": torch.ones(5, 5) > 0}, rg.ArgumentError, "goes without attn_mask"),
        ((Q, K, K), {}, rg.ShapeError, "without enable_gqa=True"),
        ((K, Q[:, :3], Q[:, :3]), {"enable_gqa": True}, rg.ShapeError, "Hkv"),
        ((Q, Q[:, :3], Q[:, :2]), {"enable_gqa": True}, rg.ShapeError, "divide those of query"),
        ((Q, Q, Q), {"attn_mask": torch.ones(5, 5).long()}, rg.KindError, r"0/1 mask with \.bool"),
        ((Q, Q, Q), {"attn_mask": torch.ones(4, 5)}, rg.ShapeError, "broadcast"),
        ((Q[None], Q, Q), {"attn_mask": torch.ones(3, 2, 4, 5, 5)}, rg.ShapeError, "dims before heads broadcast"),
        ((Q[0, 0, 0], Q, Q), {}, rg.ShapeError, r"query must be \(…, tokens, features\)"),
        ((Q.numpy(), Q, Q), {}, rg.KindError, "query must be a tensor"),
        ((Q, Q, Q), {"dropout_p": 1.0}, rg.ArgumentError, "below 1: got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(
    operands: tuple[Any, ...], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scaled_dot_product_attention(*operands, **arguments)

"""The ONNX operators, held to every node case that the onnx package publishes."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx.backend.test.case.node import collect_testcases
from torch import Tensor

import regard as rg
from regard.adapters.onnx import attention, rotary_embedding

TOLERANCES = {"float32": (1e-3, 1e-6), "float16": (1e-2, 2e-3), "bfloat16": (2e-2, 2e-2)}
"""Relative and absolute, by dtype: the reference rounds low precision between the steps, regard only at the end."""


def collected() -> list[Any]:
    # Collecting runs the cases of all operators, some of which overflow on purpose.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None]


CASES = collected()


def cases_of(op: str) -> list[Any]:
    return [case for case in CASES if any(node.op_type == op for node in case.model.graph.node)]


ATTENTION, ROTARY = cases_of("Attention"), cases_of("RotaryEmbedding")


def tensor(x: Any) -> Tensor:
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.astype(np.float32)).bfloat16()
    return torch.from_numpy(np.ascontiguousarray(x))


def read(case: Any) -> tuple[list[Tensor | None], dict[str, float], dict[str, Any]]:
    """The node's inputs in order (None where left out), its attributes, and the expected arrays by output."""
    (node,) = case.model.graph.node
    ((inputs, outputs),) = case.data_sets
    fed = dict(zip([one.name for one in case.model.graph.input], inputs, strict=True))
    wanted = dict(zip([one.name for one in case.model.graph.output], outputs, strict=True))
    # AttributeProto.FLOAT is type 1; every other attribute of these operators is an int.
    attributes = {one.name: one.f if one.type == 1 else one.i for one in node.attribute}
    arguments = [tensor(fed[name]) if name else None for name in node.input]
    return arguments, attributes, {name: wanted[name] for name in node.output if name}


def assert_equal(got: Tensor, wanted: Any, dtype: str) -> None:
    assert tuple(got.shape) == wanted.shape
    assert str(got.dtype) == f"torch.{dtype}"
    rtol, atol = TOLERANCES[dtype]
    np.testing.assert_allclose(got.float().numpy(), wanted.astype(np.float32), rtol=rtol, atol=atol)


def test_no_case_is_left_out() -> None:
    assert len(ATTENTION) == 93
    assert len(ROTARY) == 8


@pytest.mark.parametrize("case", ATTENTION, ids=lambda case: str(case.name))
def test_attention_gives_what_the_operator_gives(case: Any) -> None:
    arguments, attributes, wanted = read(case)
    (node,) = case.model.graph.node
    names = [slot for slot, name in zip(rg.adapters.onnx.OUTPUTS, node.output, strict=False) if name]
    opset = case.model.opset_import[0].version
    made = attention(*arguments, opset=opset, outputs=names, **attributes)  # type: ignore[arg-type]
    assert len(made) == len(names) == len(wanted)
    for got, array in zip(made, wanted.values(), strict=True):
        assert_equal(got, array, str(array.dtype))


@pytest.mark.parametrize("case", ROTARY, ids=lambda case: str(case.name))
def test_rotary_embedding_gives_what_the_operator_gives(case: Any) -> None:
    arguments, attributes, wanted = read(case)
    (array,) = wanted.values()
    assert_equal(rotary_embedding(*arguments, **attributes), array, "float32")  # type: ignore[arg-type]


def operands() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 6, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)


def test_outputs_come_in_the_order_asked_for() -> None:
    q, k, v = operands()
    present, y = attention(q, k, v, outputs=("present_value", "Y"))
    assert torch.equal(present, v)
    assert torch.equal(y, rg.attention(q, k, v))


def test_a_double_softmax_rounds_once() -> None:
    q, k, v = operands()
    (y,) = attention(q, k, v, softmax_precision=11)
    assert torch.equal(y, rg.attention(q.double(), k.double(), v.double()).float())


def test_gradients_reach_operands_and_mask() -> None:
    q, k, v = operands()
    bias = torch.randn(6, 5, 7)
    leaves = [x.requires_grad_() for x in (q, k, v, bias)]
    (y,) = attention(q, k, v, bias, is_causal=1)
    got = torch.autograd.grad(y.square().sum(), leaves)
    hidden = torch.ones(5, 7).tril() == 0
    s = q @ k.repeat_interleave(2, 1).mT / 8**0.5 + bias
    expected = s.masked_fill(hidden, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(got, torch.autograd.grad(expected.square().sum(), leaves))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sclae": 1.0}, r"attributes .* got 'sclae'\. Did you mean 'scale'"),
        ({"outputs": ("Y", "present_keys")}, r"outputs .* got 'present_keys'\. Did you mean 'present_key'"),
        ({"opset": 22}, "opset 23, 24 or 25: got opset=22"),
        ({"opset": 24, "left_window_size": 2}, "left_window_size came with opset 25"),
        ({"opset": 23, "nonpad_kv_seqlen": torch.tensor([3, 4])}, "nonpad_kv_seqlen came with opset 24"),
        ({"qk_matmul_output_mode": 4}, "0, 1, 2 or 3: got 4"),
        ({"softmax_precision": 7}, "code of a float type"),
        ({"softcap": -1.0}, "softcap is positive"),
        ({"right_window_size": -2}, "right_window_size counts keys"),
        ({"q_num_heads": 6}, "those of 4 dims show their heads"),
        ({"opset": 24, "kv_num_heads": 6}, "those of 4 dims show their heads: got kv_num_heads=6 and 3 heads"),
        ({"past_key": torch.zeros(2, 3, 1, 8)}, "past_key and past_value come together"),
        ({"past_key": torch.zeros(2, 3, 8), "past_value": torch.zeros(2, 3, 1, 8)}, r"past_key must be \(2, 3, past"),
        ({"attn_mask": torch.zeros(1, 1, 1, 5, 7)}, "attn_mask has 1 to 4 dims"),
        ({"attn_mask": torch.zeros(4, 7)}, "broadcast"),
        (
            {
                "past_key": torch.zeros(2, 3, 1, 8),
                "past_value": torch.zeros(2, 3, 1, 8),
                "nonpad_kv_seqlen": torch.tensor([3, 4]),
            },
            "has no past_key",
        ),
    ],
)
def test_what_the_operator_does_not_take_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(*operands(), **arguments)


def test_wrong_ranks_are_refused() -> None:
    q, k, v = operands()
    with pytest.raises(rg.ShapeError, match=r"all be \(B, heads, tokens, features\).* got Q float32 \(2, 6, 5, 8\)"):
        attention(q, k[0], v)
    with pytest.raises(rg.ShapeError, match=r"split into q_num_heads heads.* got q_num_heads=None"):
        attention(q[0], k[0], v[0], kv_num_heads=2)
    with pytest.raises(rg.KindError, match="Q must be a tensor"):
        attention(q.numpy(), k, v)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((2, 3, 5, 8), {"interleave": 1}, "Did you mean 'interleaved'"),
        ((5, 8), {}, r"X must be \(B, H, L, D\)"),
        ((2, 5, 24), {}, "split into num_heads heads"),
        ((2, 3, 5, 8), {"rotary_embedding_dim": 10}, "at most 8: got rotary_embedding_dim=10"),
        ((2, 3, 5, 8), {"rotary_embedding_dim": 4}, r"cos_cache must be \(B, L, 2\)"),
    ],
)
def test_what_rotary_embedding_does_not_take_is_refused(
    shape: tuple[int, ...], arguments: dict[str, Any], message: str
) -> None:
    cache = torch.zeros(2, 5, 4)
    with pytest.raises(ValueError, match=message):
        rotary_embedding(torch.zeros(shape), cache, cache, **arguments)

"""FlexAttention's functions and block masks, held to FlexAttention itself, which runs uncompiled here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import (
    BlockMask,
    and_masks,
    create_block_mask,
    create_mask,
    flex_attention,
)

import regard as rg
from regard.adapters import flex
from regard.backends.flex import uncompiled

B, H, L, S = 2, 3, 137, 151
IDS = torch.randint(0, 3, (B, S), generator=torch.Generator().manual_seed(1)).sort().values
SLOPES = torch.tensor([0.5, 0.25, 0.125])


def causal(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    return q_idx >= kv_idx


def documents(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    return IDS[b, q_idx] == IDS[b, kv_idx]


def by_head(b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    return (q_idx - kv_idx).abs() <= 7 * (h + 1)


MASK_MODS = {"causal": causal, "documents": documents, "by head": by_head, "both": and_masks(causal, documents)}


def alibi(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    return score - SLOPES[h] * (q_idx - kv_idx).abs()


def capped(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
    return 2 * torch.tanh(score / 2)


def operands() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(B, H, L, 8), torch.randn(B, H, S, 8), torch.randn(B, H, S, 8)


def flexed(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> Tensor:
    with uncompiled():
        out = flex_attention(q, k, v, **arguments)
    assert isinstance(out, Tensor)
    return out


def blocks_of(mask_mod: Callable[..., Tensor], size: int | tuple[int, int] = 128) -> BlockMask:
    return create_block_mask(mask_mod, B, H, L, S, device="cpu", BLOCK_SIZE=size)


@pytest.mark.parametrize("name", MASK_MODS)
def test_a_mask_mod_hides_what_it_hides_there(name: str) -> None:
    mask = flex.from_mask_mod(MASK_MODS[name])
    dense = mask.dense(L, S, batch=B, heads=H).expand(B, H, L, S)
    assert torch.equal(dense, create_mask(MASK_MODS[name], B, H, L, S, device="cpu"))
    q, k, v = operands()
    expected = flexed(q, k, v, block_mask=blocks_of(MASK_MODS[name]))
    torch.testing.assert_close(rg.attention(q, k, v, mask=mask), expected)
    # Combined with a mask that goes by positions.
    both = rg.attention(q, k, v, mask=mask & rg.Prefix(90))
    torch.testing.assert_close(both, rg.attention(q, k, v, mask=rg.Dense(dense & (torch.arange(S) < 90))))


@pytest.mark.parametrize("name", MASK_MODS)
def test_a_block_mask_hides_what_it_hides_there(name: str) -> None:
    block_mask = blocks_of(MASK_MODS[name], (32, 64))
    mask = flex.from_block_mask(block_mask)
    assert torch.equal(mask.dense(L, S, batch=B), create_mask(MASK_MODS[name], B, H, L, S, device="cpu"))
    q, k, v = operands()
    torch.testing.assert_close(rg.attention(q, k, v, mask=mask), flexed(q, k, v, block_mask=blocks_of(MASK_MODS[name])))


def test_a_block_mask_that_is_made_of_blocks_alone() -> None:
    num_blocks = torch.tensor([[[1, 2, 0]]], dtype=torch.int32)
    indices = torch.tensor([[[[1, 0, 2], [2, 0, 1], [0, 1, 2]]]], dtype=torch.int32)
    block_mask = BlockMask.from_kv_blocks(num_blocks, indices, BLOCK_SIZE=4, seq_lengths=(11, 10))
    mask = flex.from_block_mask(block_mask)
    grid = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 0, 0]]) > 0
    expected = grid.repeat_interleave(4, 0).repeat_interleave(4, 1)[:11, :10]
    assert torch.equal(mask.dense(11, 10)[0, 0], expected)
    assert mask.map(torch.clone).equal(mask)
    assert repr(mask) == "from_block_mask(<BlockMask 11 x 10>)"


@pytest.mark.parametrize("score_mod", [alibi, capped])
def test_a_score_mod_changes_what_it_changes_there(score_mod: Callable[..., Tensor]) -> None:
    q, k, v = operands()
    out = rg.attention(q, k, v, score_mod=flex.from_score_mod(score_mod))
    torch.testing.assert_close(out, flexed(q, k, v, score_mod=score_mod))


def test_what_a_score_mod_learns_gets_a_gradient() -> None:
    q, k, v = operands()
    table = torch.randn(L, requires_grad=True)
    out = rg.attention(q, k, v, score_mod=flex.from_score_mod(lambda s, b, h, q_idx, kv_idx: s * table[q_idx]))
    expected = torch.softmax(q @ k.mT / 8**0.5 * table[:, None], -1) @ v
    gradients = [torch.autograd.grad(x.square().sum(), table)[0] for x in (out, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


POSITIONS = torch.arange(L) * 2 % 100
MASKS: list[tuple[rg.Mask, dict[str, Any]]] = [
    (rg.Causal(), {}),
    (rg.Causal(), {"q_positions": POSITIONS}),
    (rg.SlidingWindow(9, 4) | rg.Prefix(5), {}),
    (rg.Padding(torch.tensor([40, S])) & rg.Causal(), {}),
    (~rg.Document(IDS[:, :L], IDS), {"q_positions": torch.arange(L)}),
]


@pytest.mark.parametrize(("mask", "positions"), MASKS, ids=lambda x: repr(x) if isinstance(x, rg.Mask) else "")
def test_a_mask_goes_over(mask: rg.Mask, positions: dict[str, Any]) -> None:
    q, k, v = operands()
    expected = rg.attention(q, k, v, mask=mask, **positions)
    out = flexed(q, k, v, block_mask=flex.to_block_mask(mask, L, S, **positions, batch=B, heads=H))
    torch.testing.assert_close(out, expected)
    mask_mod = flex.to_mask_mod(mask, L, S, **positions, batch=B, device="cpu")
    dense = mask.dense(L, S, **positions, batch=B, heads=H).expand(B, H, L, S)
    assert torch.equal(create_mask(mask_mod, B, H, L, S, device="cpu"), dense)
    there_and_back = flex.from_block_mask(flex.to_block_mask(mask, L, S, **positions, batch=B))
    assert torch.equal(there_and_back.dense(L, S, batch=B, heads=H).expand(B, H, L, S), dense)


def test_score_changes_go_over_in_order() -> None:
    q, k, v = operands()
    mods = [rg.Softcap(2.0), rg.Alibi(SLOPES), rg.Bias(torch.randn(L, S))]
    there = flex.to_score_mod(mods, L, S, batch=B, heads=H)
    torch.testing.assert_close(flexed(q, k, v, score_mod=there), rg.attention(q, k, v, score_mod=mods))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: flex.from_mask_mod(3), "takes a function .*: got 3"),  # type: ignore[arg-type]
        (lambda: flex.from_mask_mod(lambda b, h, i, j: i - j).dense(3, 3), "must return a bool tensor"),
        (lambda: flex.from_block_mask(causal), "takes a BlockMask"),  # type: ignore[arg-type]
        (
            lambda: flex.from_block_mask(blocks_of(causal)).dense(L, L, batch=B),
            "3 heads, 137 queries and 151 keys, but",
        ),
        (lambda: flex.from_block_mask(blocks_of(causal)).dense(L, S, batch=5), "batch of 2, but .* 5"),
        (lambda: flex.from_score_mod(3), "takes a function"),  # type: ignore[arg-type]
        (lambda: flex.to_block_mask(torch.ones(L, S) > 0, L, S), r"becomes one with Dense"),  # type: ignore[arg-type]
        (lambda: flex.to_mask_mod(rg.Dense(torch.ones(3, 3) > 0), L, S), "Dense must broadcast"),
        (lambda: flex.to_score_mod(rg.Bias(torch.ones(3, 3)), L, S), "Bias must broadcast"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(rg.RegardError, match=message):
        wrong()

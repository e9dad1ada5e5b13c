"""`torch.nn.MultiheadAttention` and what regard makes of it: the same call, numbers and gradients, both ways."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.adapters import torch_mha
from regard.adapters.torch_mha import from_torch, to_torch

SIZES: dict[str, dict[str, Any]] = {
    "fused": {},
    "kdim": {"kdim": 7},
    "both": {"kdim": 7, "vdim": 11},
    "no bias": {"bias": False},
}
B, H, L, S, E = 2, 3, 5, 7, 12


def made(sizes: dict[str, Any], *, batch_first: bool) -> nn.MultiheadAttention:
    module = nn.MultiheadAttention(E, H, batch_first=batch_first, dtype=torch.float64, **sizes)
    for p in module.parameters():
        nn.init.normal_(p, std=0.5)
    return module


def operands(module: nn.MultiheadAttention, *, batched: bool = True) -> list[Tensor]:
    shapes = [(L, E), (S, module.kdim), (S, module.vdim)]
    if batched:
        shapes = [(B, *s) if module.batch_first else (s[0], B, s[1]) for s in shapes]  # type: ignore[misc]
    return [torch.randn(s, dtype=torch.float64) for s in shapes]


def masks(kind: str, *, batched: bool = True) -> dict[str, Any]:
    """Masks that leave every query something to see."""
    heads = B * H if batched else H
    padding = torch.arange(S) >= torch.tensor([[S], [4]])
    hide = torch.rand(heads, L, S) < 0.4
    hide[..., 0] = False
    infinite = torch.zeros(heads, L, S, dtype=torch.float64).masked_fill(hide, -torch.inf)
    padding = padding if batched else padding[1]
    return {
        "none": {},
        "padding": {"key_padding_mask": padding},
        "bool": {"attn_mask": hide[0]},
        "bool 3": {"attn_mask": hide, "key_padding_mask": padding},
        "float": {"attn_mask": torch.randn(L, S, dtype=torch.float64)},
        "float 3": {"attn_mask": infinite + torch.randn(S, dtype=torch.float64)},
        "infinite": {"attn_mask": infinite[0]},
        "float padding": {
            "attn_mask": infinite,
            "key_padding_mask": torch.zeros(padding.shape, dtype=torch.float64).masked_fill(padding, -torch.inf),
        },
        "added padding": {"key_padding_mask": torch.randn(padding.shape, dtype=torch.float64)},
    }[kind]


KINDS = ["none", "padding", "bool", "bool 3", "float", "float 3", "infinite", "float padding", "added padding"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sizes", "batch_first"), list(itertools.product(SIZES, [False, True])))
def test_outputs_weights_and_gradients_are_torchs(sizes: str, batch_first: bool, kind: str) -> None:
    theirs = made(SIZES[sizes], batch_first=batch_first)
    ours = from_torch(theirs)
    x, arguments = operands(theirs), masks(kind)
    out, weights = ours(*x, **arguments)
    expected, expected_weights = theirs(*x, **arguments)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights, expected_weights)
    per_head = ours(*x, **arguments, average_attn_weights=False)[1]
    torch.testing.assert_close(per_head, theirs(*x, **arguments, average_attn_weights=False)[1])
    out, nothing = ours(*x, **arguments, need_weights=False)
    assert nothing is None
    leaves = list(theirs.parameters())
    got = torch.autograd.grad(out.square().sum(), leaves)
    torch.testing.assert_close(got, torch.autograd.grad(expected.square().sum(), leaves))


@pytest.mark.parametrize("kind", KINDS)
def test_one_entry_without_a_batch(kind: str) -> None:
    theirs = made({}, batch_first=False)
    x, arguments = operands(theirs, batched=False), masks(kind, batched=False)
    for got, expected in zip(from_torch(theirs)(*x, **arguments), theirs(*x, **arguments), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("weights", [False, True])
def test_self_attention_with_the_causal_hint(weights: bool) -> None:
    theirs = made({}, batch_first=True)
    x = torch.randn(B, L, E, dtype=torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64)
    out, _ = from_torch(theirs)(x, x, x, attn_mask=causal, is_causal=True, need_weights=weights)
    torch.testing.assert_close(out, theirs(x, x, x, attn_mask=causal, is_causal=True, need_weights=weights)[0])


def test_a_mask_of_zeros_and_infinities_hides_and_is_skipped() -> None:
    ours = from_torch(made({}, batch_first=True))
    q = k = torch.randn(B, H, L, 4)
    hide = torch.ones(L, L, dtype=torch.bool).triu(1)
    additive = torch.zeros(L, L).masked_fill(hide, -torch.inf)
    mask, bias = ours._masks(q, k, None, additive, causal=False)
    assert mask.equal(rg.Dense(~hide))
    assert bias == []


def test_a_query_that_sees_nothing_gives_the_projection_of_zero() -> None:
    ours = from_torch(made({}, batch_first=True))
    x = torch.randn(B, L, E, dtype=torch.float64)
    hide = torch.zeros(L, L, dtype=torch.bool)
    hide[2] = True
    out, weights = ours(x, x, x, attn_mask=hide)
    torch.testing.assert_close(out[:, 2], ours.out_proj.bias.expand(B, E))
    assert torch.equal(weights[:, 2], torch.zeros(B, L, dtype=torch.float64))


def test_weights_are_those_before_dropout() -> None:
    theirs = made({}, batch_first=True)
    theirs.dropout = 0.5
    ours = from_torch(theirs)
    x = torch.randn(B, L, E, dtype=torch.float64)
    out, weights = ours(x, x, x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, L, dtype=torch.float64))
    assert not torch.allclose(out, ours.eval()(x, x, x)[0])


@pytest.mark.parametrize("sizes", SIZES)
def test_there_and_back_with_the_same_parameters(sizes: str) -> None:
    theirs = made(SIZES[sizes], batch_first=True).eval()
    ours = from_torch(theirs)
    back = to_torch(ours)
    assert list(back.state_dict()) == list(ours.state_dict()) == list(theirs.state_dict())
    assert all(a is b for a, b in zip(back.parameters(), theirs.parameters(), strict=True))
    assert not ours.training
    assert not back.training
    x = operands(theirs)
    torch.testing.assert_close(back(*x)[0], theirs(*x)[0])
    copy.deepcopy(ours).load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("kind", ["none", "padding"])
def test_it_compiles_into_one_graph(kind: str) -> None:
    torch.compiler.reset()
    ours = from_torch(made({}, batch_first=True)).eval()
    x = operands(to_torch(ours))
    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    expected, _ = ours(*x, **masks(kind), need_weights=False)
    torch.testing.assert_close(compiled(*x, **masks(kind), need_weights=False)[0], expected)


def test_a_conversion_that_changes_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = made({}, batch_first=True)
    monkeypatch.setattr(torch_mha, "Dense", lambda allowed: rg.Dense(~allowed))
    with pytest.raises(rg.ArgumentError, match=r"not equivalent: on one input they differ by .* Nothing was changed"):
        from_torch(theirs)


def test_the_check_leaves_random_numbers_modes_and_hooks_alone() -> None:
    theirs = made({}, batch_first=True)
    theirs.register_forward_hook(lambda *_: pytest.fail("a hook ran"))
    state = torch.get_rng_state()
    from_torch(theirs)
    assert torch.equal(torch.get_rng_state(), state)
    assert theirs.training


class Child(nn.MultiheadAttention):
    """May compute anything."""


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MultiheadAttention(E, H, add_bias_kv=True), "add_bias_kv=True, which adds one, is not converted"),
        (nn.MultiheadAttention(E, H, add_zero_attn=True), "add_zero_attn=True"),
        (nn.MultiheadAttention(E, H, device="meta"), "weights on the meta device"),
        (Child(E, H), "takes a torch.nn.MultiheadAttention: got a Child"),
        (nn.Linear(3, 3), "got a Linear"),
    ],
)
def test_what_cannot_be_converted_is_refused(module: Any, message: str) -> None:
    with pytest.raises(rg.RegardError, match=message):
        from_torch(module)


def test_back_goes_only_what_came() -> None:
    with pytest.raises(rg.KindError, match="takes what from_torch made: got a Linear"):
        to_torch(nn.Linear(3, 3))  # type: ignore[arg-type]


X = torch.zeros(B, L, E, dtype=torch.float64)


@pytest.mark.parametrize(
    ("query", "arguments", "message"),
    [
        (X[0, 0], {}, "must all have 3 dims, or all 2"),
        (X[..., 1:], {}, "query must have 12 features"),
        (X, {"is_causal": True}, "is_causal is a hint about attn_mask"),
        (X, {"attn_mask": torch.zeros(B, L, L)}, r"\(B \* H, L, S\) = \(6, 5, 5\): got \(2, 5, 5\)"),
        (X, {"attn_mask": torch.zeros(L, L).long()}, "attn_mask is bool, True = hide"),
        (X, {"key_padding_mask": torch.zeros(L, B) > 0}, r"\(B, S\) = \(2, 5\).*got \(5, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(query: Tensor, arguments: dict[str, Any], message: str) -> None:
    ours = from_torch(made({}, batch_first=True))
    with pytest.raises(rg.RegardError, match=message):
        ours(query, X, X, **arguments)

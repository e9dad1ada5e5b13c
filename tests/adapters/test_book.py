"""The book's checkpoints, saved by modules written as the book writes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.adapters.book import load_state_dict

D_IN, D_OUT, LENGTH, HEADS = 7, 6, 5, 3


class Causal(nn.Module):
    """One causal head: three linear layers and a saved mask."""

    mask: Tensor

    def __init__(self, d_in: int = D_IN, d_out: int = D_OUT, *, bias: bool = False) -> None:
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=bias)
        self.W_key = nn.Linear(d_in, d_out, bias=bias)
        self.W_value = nn.Linear(d_in, d_out, bias=bias)
        self.register_buffer("mask", torch.triu(torch.ones(LENGTH, LENGTH), diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        scores = self.W_query(x) @ self.W_key(x).transpose(1, 2)
        scores.masked_fill_(self.mask.bool()[:n, :n], -torch.inf)
        context: Tensor = torch.softmax(scores / scores.new_tensor(D_OUT).sqrt(), dim=-1) @ self.W_value(x)
        return context


class Multi(Causal):
    """Several heads side by side in one layer, and an output projection."""

    def __init__(self, *, bias: bool = False) -> None:
        super().__init__(bias=bias)
        self.out_proj = nn.Linear(D_OUT, D_OUT)

    def forward(self, x: Tensor) -> Tensor:
        n, d = x.shape[1], D_OUT // HEADS
        q, k, v = (w(x).view(*x.shape[:2], HEADS, d).transpose(1, 2) for w in (self.W_query, self.W_key, self.W_value))
        scores = (q @ k.transpose(2, 3)).masked_fill(self.mask.bool()[:n, :n], -torch.inf)
        context = (torch.softmax(scores / d**0.5, dim=-1) @ v).transpose(1, 2).reshape(*x.shape[:2], D_OUT)
        out: Tensor = self.out_proj(context)
        return out


class Wrapper(nn.Module):
    """Heads one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Causal() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([head(x) for head in self.heads], dim=-1)


def multi(**changes: Any) -> rg.nn.MultiHeadAttention:
    return rg.nn.MultiHeadAttention(D_IN, D_OUT, LENGTH, 0.5, **{"num_heads": HEADS, **changes})


PAIRS: dict[str, tuple[nn.Module, nn.Module]] = {
    "causal": (Causal(), rg.nn.CausalAttention(D_IN, D_OUT, LENGTH, 0.5)),
    "causal with bias": (Causal(bias=True), rg.nn.CausalAttention(D_IN, D_OUT, LENGTH, 0.5, qkv_bias=True)),
    "multi": (Multi(), multi()),
    "multi with bias": (Multi(bias=True), multi(qkv_bias=True)),
    "wrapper": (Wrapper(), rg.nn.MultiHeadAttentionWrapper(D_IN, D_OUT, LENGTH, 0.5, 2)),
    "model": (nn.Sequential(nn.Linear(4, D_IN), Multi()), nn.Sequential(nn.Linear(4, D_IN), multi())),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_checkpoint_gives_the_books_numbers(name: str) -> None:
    theirs, ours = PAIRS[name]
    assert any(key.endswith("mask") for key in theirs.state_dict())
    load_state_dict(ours, theirs.state_dict())
    assert ours.training
    x = torch.randn(2, 4, 4 if name == "model" else D_IN)
    torch.testing.assert_close(ours.eval()(x), theirs(x))


def test_the_modules_without_a_mask() -> None:
    for kind in (rg.nn.SelfAttentionV1, rg.nn.SelfAttentionV2):
        source, target = kind(D_IN, D_OUT), kind(D_IN, D_OUT)
        load_state_dict(target, source.state_dict())
        x = torch.randn(2, 4, D_IN)
        torch.testing.assert_close(target(x), source(x))


def renamed(old: str, new: str) -> dict[str, Tensor]:
    state = dict(Multi().state_dict())
    state[new] = state.pop(old)
    return state


@pytest.mark.parametrize(
    ("target", "state", "message"),
    [
        (multi(), renamed("W_key.weight", "W_keys.weight"), r"has 'W_keys.weight'.* Did you mean 'W_key.weight'\?"),
        (multi(), {**Multi().state_dict(), "W_key.bias": torch.ones(D_OUT)}, "has 'W_key.bias', for which .* no place"),
        (multi(qkv_bias=True), Multi().state_dict(), r"needs 'W_query.bias', .* lacks\. Did you mean 'W_query.weight'"),
        (multi(sinks=True), Multi().state_dict(), "needs 'sinks', which the checkpoint lacks"),
        (multi(num_heads=2, head_dim=4), Multi().state_dict(), r"is \(8, 7\) in the module, but \(6, 7\)"),
        (multi(mask=None), Multi().state_dict(), "and the book's module are not equivalent"),
        (multi(num_kv_heads=1), multi(num_kv_heads=1).state_dict(), "as many key/value heads as .*: got 1 for 3"),
        (multi(score_mod=rg.Softcap(0.1)), Multi().state_dict(), "MultiHeadAttention and the book's module are not"),
        (multi(), {**Multi().state_dict(), "mask": torch.ones(LENGTH, LENGTH).tril()}, "'mask' is left out only where"),
        (multi(), {**Multi().state_dict(), "mask": torch.ones(())}, r"another one of shape \(\)"),
        (multi(), {key: t.to("meta") for key, t in multi().state_dict().items()}, "on the meta device"),
    ],
)
def test_what_does_not_match_is_refused_and_nothing_loaded(
    target: nn.Module, state: dict[str, Tensor], message: str
) -> None:
    before = {key: t.clone() for key, t in target.state_dict().items()}
    with pytest.raises(rg.RegardError, match=message):
        load_state_dict(target, state)
    assert all(torch.equal(t, before[key]) for key, t in target.state_dict().items())
    assert target.training

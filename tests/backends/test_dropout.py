"""Dropout: one meaning on every backend that offers it, and a hash that behaves like chance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import regard as rg
from regard import _dropout
from regard._coordinates import Frame
from regard.testing.claims import claiming
from regard.testing.oracle import keeps

OFFERS = claiming(lambda can: can.dropout)


def dropped_weights(name: str, p: float, seed: int = 11, q_len: int = 37, k_len: int = 53) -> tuple[Tensor, Tensor]:
    """The weights after dropout, read off by one-hot values, and before it; ``(2, 3, q_len, k_len)``."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, q_len, 8), torch.randn(2, 3, k_len, 8)
    v = torch.eye(k_len).expand(2, 3, k_len, k_len)
    torch.manual_seed(seed)
    seen = rg.inspect(q, k, v, mask=rg.SlidingWindow(40), dropout_p=p, backend=name)
    return seen.out, seen.weights.dense()


@pytest.mark.parametrize("name", OFFERS)
def test_kept_weights_are_scaled_and_the_others_zero(name: str) -> None:
    after, before = dropped_weights(name, 0.3)
    kept = after != 0
    torch.testing.assert_close(after[kept], before[kept] / 0.7)
    assert 0.6 < kept[before > 0].double().mean() < 0.8


@pytest.mark.parametrize("name", OFFERS)
def test_weights_are_those_before_dropout(name: str) -> None:
    """Other libraries hand out weights whose rows do not sum to 1."""
    torch.testing.assert_close(dropped_weights(name, 0.3)[1].sum(-1), torch.ones(2, 3, 37))


@pytest.mark.parametrize("name", OFFERS)
def test_one_seed_drops_the_same_weights_on_every_backend(name: str) -> None:
    ours, theirs = dropped_weights(name, 0.5)[0], dropped_weights("reference", 0.5)[0]
    assert torch.equal(ours != 0, theirs != 0)
    assert not torch.equal(ours != 0, dropped_weights(name, 0.5, seed=12)[0] != 0)


@pytest.mark.parametrize("name", OFFERS)
def test_the_weights_dropped_are_the_contracts(name: str) -> None:
    torch.manual_seed(11)
    seed = int(torch.randint(0, 2**63 - 1, (), dtype=torch.int64))
    after, before = dropped_weights(name, 0.5)
    b, h, i, j = (before > 0).nonzero(as_tuple=True)
    assert torch.equal((after != 0)[b, h, i, j], keeps(seed, 0.5, b, h, i, j))


def test_backward_drops_what_forward_dropped() -> None:
    """Gradients of one seed on both backends, over several blocks."""
    found = []
    for name in OFFERS:
        torch.manual_seed(3)
        q, k, v = (torch.randn(1, 2, n, 8, requires_grad=True) for n in (140, 150, 150))
        out = rg.attention(q, k, v, mask=rg.Causal(), dropout_p=0.4, backend=name)
        found.append([out, *torch.autograd.grad(out, [q, k, v], out.cos())])
    for name, tensors in zip(OFFERS, found, strict=True):
        for ours, theirs in zip(tensors, found[0], strict=True):
            torch.testing.assert_close(ours, theirs, msg=f"{name} drops other weights than {OFFERS[0]}")


def test_each_call_draws_one_number_and_others_none() -> None:
    q, k, v = torch.randn(3, 1, 1, 5, 4).unbind()
    torch.manual_seed(1)
    rg.attention(q, k, v, dropout_p=0.0)
    with pytest.raises(rg.UnsupportedError):
        rg.attention(q, k, v, dropout_p=0.5, backend="torch")
    with pytest.raises(rg.ShapeError):
        rg.attention(q, k, v[:, :, 1:], dropout_p=0.5)
    rg.attention(q, k, v, dropout_p=0.5)
    after = torch.rand(())
    torch.manual_seed(1)
    torch.randint(0, 2**63 - 1, (), dtype=torch.int64)
    assert after == torch.rand(())


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_a_probability_outside_its_range_is_refused(p: float) -> None:
    with pytest.raises(rg.ArgumentError, match="dropout_p must be at least 0 and below 1"):
        rg.attention(*torch.randn(3, 1, 1, 5, 4).unbind(), dropout_p=p)


# --- the hash behaves like chance ------------------------------------------------------------------------------------

SEEDS = [0, 1, 2, 2**32, 2**62 + 987654321]


def kept(seed: int, p: float, batch: int = 2, heads: int = 4, rows: int = 256, columns: int = 256) -> Tensor:
    at = Frame.of(batch, heads, rows, columns).everywhere()
    return _dropout.keep(seed, p, at).expand(batch, heads, rows, columns).double()


def standardised(x: Tensor, p: float) -> Tensor:
    """Sums of kept flags over the last dim as standard normal deviates."""
    n = x.shape[-1]
    return (x.sum(-1) - n * (1 - p)) / math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_the_share_kept_is_right_over_each_head(seed: int, p: float) -> None:
    assert standardised(kept(seed, p).flatten(2), p).abs().max() < 4.5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_kept_is_right_over_each_row_and_column(seed: int, p: float) -> None:
    """Sums of 256 independent flags: variance 1, and none of the 2,048 is 6 deviations out."""
    for lines in (kept(seed, p), kept(seed, p).mT):
        deviates = standardised(lines, p)
        assert float(deviates.var()) == pytest.approx(1, abs=0.13)
        assert deviates.abs().max() < 6


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbours_are_independent(seed: int) -> None:
    """Next column, row, head and batch entry, and diagonals: correlation within 4.5 deviations of 0."""
    flags = kept(seed, 0.5) - 0.5
    whole = slice(None)
    shifts = [(0, 0, 0, 1), (0, 0, 0, 2), (0, 0, 0, 64), (0, 0, 1, 0), (0, 0, 2, 0), (0, 0, 1, 1), (0, 1, 0, 0),
              (0, 2, 0, 0), (1, 0, 0, 0), (0, 1, 1, 0), (1, 0, 0, 1)]  # fmt: skip
    for shift in shifts:
        ahead = flags[tuple(slice(n, None) if n else whole for n in shift)]
        behind = flags[tuple(slice(None, -n) if n else whole for n in shift)]
        correlation = float((ahead * behind).mean()) / 0.25
        assert abs(correlation) < 4.5 / math.sqrt(ahead.numel()), shift


def test_seeds_are_independent() -> None:
    """Neighbouring seeds, and seeds that differ in their high half alone."""
    for one, other in ((0, 1), (1, 2), (5, 5 + 2**32), (2**61, 2**61 + 1)):
        product = (kept(one, 0.5) - 0.5) * (kept(other, 0.5) - 0.5)
        assert abs(float(product.mean())) / 0.25 < 4.5 / math.sqrt(product.numel())


def mixed(x: Tensor) -> Tensor:
    """The hash of whole numbers, as whole numbers of 32 bits."""
    return _dropout.mix32(x.to(torch.int32)).to(torch.int64) & 0xFFFFFFFF


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_of_the_hash_is_uniform(shift: int) -> None:
    """Chi-square over 256 values of one byte: 255 degrees of freedom, within 5 deviations."""
    counts = torch.bincount(mixed(torch.arange(2**18)) >> shift & 255, minlength=256).double()
    expected = 2**18 / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)


def test_one_changed_bit_changes_half_of_the_hash() -> None:
    x = torch.arange(2**12)
    for bit in range(32):
        changed = mixed(x) ^ mixed(x ^ (1 << bit))
        flips = torch.stack([(changed >> n & 1).double().mean() for n in range(32)])
        assert flips.mean() == pytest.approx(0.5, abs=0.03), bit
        assert ((flips > 0.3) & (flips < 0.7)).all(), bit


def test_the_hash_is_one_to_one() -> None:
    assert len(mixed(torch.arange(2**20)).unique()) == 2**20


def test_runs_of_kept_weights_have_the_right_lengths() -> None:
    """Along a row, a run of kept weights ends with probability p: its mean length is 1/p."""
    for p in (0.25, 0.5):
        flags = kept(3, p, batch=1, heads=1, rows=1, columns=2**17).flatten()
        ends = ((flags[:-1] == 1) & (flags[1:] == 0)).sum()
        mean = float(flags.sum() / ends)
        assert mean == pytest.approx(1 / p, rel=0.02)

"""Which weights dropout keeps: the formula of DESIGN.md in Python's own integers, and the randomness it promises."""

from __future__ import annotations

import pytest
import torch

from regard import _dropout
from regard._coordinates import Coordinates, Frame

WORD = 2**32


def mix32(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D % WORD
    x ^= x >> 15
    x = x * 0x846CA68B % WORD
    return x ^ (x >> 16)


def kept(seed: int, p: float, b: int, h: int, i: int, j: int) -> bool:
    state = 0
    for word in (seed % WORD, (seed >> 32) % WORD, b, h, i):
        state = mix32(((state ^ word) + 0x9E3779B9) % WORD)
    return mix32(state ^ (j * 0x9E3779B9 % WORD)) >= int(p * WORD)


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.731, 0.999_999_9])
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, 6_364_136_223_846_793_005])
def test_the_formula_in_exact_integers(seed: int, p: float) -> None:
    places = [
        torch.tensor([0, 1, 7, 1000]),
        torch.tensor([0, 3, 31]),
        torch.tensor([0, 131_071]),
        torch.arange(29) * 4999,
    ]
    b, h, i, j = torch.meshgrid(*places, indexing="ij")
    got = _dropout.keep(seed, p, Coordinates(b, h, i, j, i, j))
    want = [kept(seed, p, *map(int, place)) for place in zip(b.ravel(), h.ravel(), i.ravel(), j.ravel(), strict=True)]
    assert got.ravel().tolist() == want


def bits(seed: int, p: float, length: int = 512) -> torch.Tensor:
    return _dropout.keep(seed, p, Frame.of(2, 3, length, length).everywhere()).double()


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_the_rate_is_p_overall_and_in_every_row_and_column(p: float) -> None:
    keep = bits(11, p)
    for dims in ((0, 1, 2, 3), (3,), (2,), (0, 1, 2)):
        count = keep.numel() / keep.mean(dims).numel()
        z = (keep.mean(dims) - (1 - p)) * (count / (p * (1 - p))) ** 0.5
        assert z.abs().max() < 5.5


def test_neighbours_rows_heads_entries_and_seeds_are_uncorrelated() -> None:
    keep, other = bits(5, 0.5) - 0.5, bits(6, 0.5) - 0.5
    pairs = {
        "columns": (keep[..., 1:], keep[..., :-1]),
        "columns, far": (keep[..., 64:], keep[..., :-64]),
        "rows": (keep[:, :, 1:], keep[:, :, :-1]),
        "diagonals": (keep[:, :, 1:, 1:], keep[:, :, :-1, :-1]),
        "transpose": (keep.tril(-1), keep.mT.tril(-1)),
        "heads": (keep[:, 1:], keep[:, :-1]),
        "entries": (keep[1:], keep[:-1]),
        "seeds": (keep, other),
    }
    for name, (a, b) in pairs.items():
        count = int((a != 0).logical_and(b != 0).sum())
        z = 4 * (a * b).sum() / count**0.5
        assert z.abs() < 5, name


def test_runs_of_eight_are_as_frequent_as_chance_makes_them() -> None:
    octets = bits(3, 0.5).reshape(-1, 8) @ (2.0 ** torch.arange(8, dtype=torch.float64))
    counts = torch.bincount(octets.long(), minlength=256).double()
    expected = counts.sum() / 256
    chi_square = ((counts - expected).square() / expected).sum()
    assert 255 - 5 * 22.6 < chi_square < 255 + 5 * 22.6


def test_the_seed_comes_from_the_default_generator() -> None:
    torch.manual_seed(4)
    first = _dropout.draw_seed()
    assert first != _dropout.draw_seed()
    torch.manual_seed(4)
    assert first == _dropout.draw_seed()

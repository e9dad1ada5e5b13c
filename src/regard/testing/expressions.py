"""Random masks, score changes and positions, drawn from a `random.Random`.

One source for both uses: a seeded `random.Random` makes the cases of `regard.testing.cases`, and hypothesis hands in
its own, which it records and shrinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

from regard._coordinates import Frame
from regard.masks import (
    Causal,
    Chunked,
    Dense,
    Dilated,
    Document,
    Everything,
    Mask,
    Nothing,
    Padding,
    Predicate,
    Prefix,
    SlidingWindow,
)
from regard.scores import Alibi, Bias, RelativeBias, ScoreMod, ScoreModification, Softcap


def random_mask(rng: Random, frame: Frame, depth: int = 3) -> Mask:
    """An expression of ``&``, ``|`` and ``~`` over all primitives, at most ``depth`` operators deep."""
    if depth == 0 or rng.randrange(3) == 0:
        return rng.choice(PRIMITIVES)(rng, frame)
    match rng.randrange(5):
        case 0 | 1:
            return random_mask(rng, frame, depth - 1) & random_mask(rng, frame, depth - 1)
        case 2 | 3:
            return random_mask(rng, frame, depth - 1) | random_mask(rng, frame, depth - 1)
        case _:
            return ~random_mask(rng, frame, depth - 1)


def random_score_mods(rng: Random, frame: Frame, most: int = 3) -> tuple[ScoreModification, ...]:
    """Up to ``most`` score changes in any order; whatever they learn requires a gradient."""
    return tuple(rng.choice(SCORE_CHANGES)(rng, frame) for _ in range(rng.randint(0, most)))


def random_positions(rng: Random, length: int, batch: int, reach: int) -> Tensor:
    """int64 positions within ``reach`` of the sequence, ``(length,)`` or ``(batch, length)``.

    Ascending with gaps, rotated as a ring buffer leaves them, shuffled, or with repeats.
    """
    rows = batch if rng.random() < 0.5 else 1
    table = torch.tensor([_positions(rng, length, reach) for _ in range(rows)], dtype=torch.int64).reshape(rows, length)
    return table[0] if rows == 1 and rng.random() < 0.5 else table


def _positions(rng: Random, length: int, reach: int) -> list[int]:
    start = rng.randint(-reach, reach)
    match rng.randrange(4):
        case 0:
            step = rng.randint(1, 3)
            return [start + step * n for n in range(length)]
        case 1:
            turn = rng.randint(0, max(length - 1, 0))
            return [start + (n + turn) % length for n in range(length)]
        case 2:
            shuffled = [start + n for n in range(length)]
            rng.shuffle(shuffled)
            return shuffled
        case _:
            return [rng.randint(-reach, length + reach) for _ in range(length)]


# Callables with a readable repr, so that a failing case can be read.


@dataclass(frozen=True)
class SumIs:
    """``(q + k) % modulus == residue``."""

    modulus: int
    residue: int

    def __call__(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return torch.remainder(q + k, self.modulus) == self.residue


@dataclass(frozen=True)
class HeadReach:
    """Head ``h`` of entry ``b`` sees ``base + step * h + b`` keys to either side."""

    base: int
    step: int

    def __call__(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k).abs() <= self.base + self.step * h + b


@dataclass(frozen=True, eq=False)
class HeadGate:
    """An opaque score change with a captured learned tensor: ``s * (1 + tanh(gate[h]) / 2) + gate[h] * sin(q - k)``."""

    gate: Tensor

    def __call__(self, s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        gate = self.gate.to(s.dtype)[h]
        return s * (1 + torch.tanh(gate) / 2) + gate * torch.sin((q - k).to(s.dtype))

    def __repr__(self) -> str:
        return f"HeadGate(<{self.gate.shape[0]} heads>)"


class DistanceGate(nn.Module):
    """An opaque score change that is a module: ``s + weight * s² / (4 + s²) - |q - k| / (2 + |q - k|)``."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = (q - k).abs().to(s.dtype)
        return s + self.weight.to(s.dtype) * s.square() / (4 + s.square()) - distance / (2 + distance)


def random_bits(rng: Random, shape: tuple[int, ...]) -> Tensor:
    """A bool tensor, a quarter, half or three quarters of it true."""
    count = 1
    for n in shape:
        count *= n
    word = rng.getrandbits(count) if count else 0
    match rng.randrange(3):
        case 0:
            word &= rng.getrandbits(count) if count else 0
        case 1:
            word |= rng.getrandbits(count) if count else 0
    return torch.tensor([word >> n & 1 for n in range(count)], dtype=torch.bool).reshape(shape)


def random_normal(rng: Random, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal values, drawn in float64 and rounded to ``dtype``."""
    generator = torch.Generator().manual_seed(rng.getrandbits(32))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def _or_one(rng: Random, size: int) -> int:
    return size if rng.random() < 0.6 else 1


def _broadcastable(rng: Random, frame: Frame) -> tuple[int, ...]:
    """A shape that broadcasts to ``(B, H, q_len, k_len)``, some leading dims left out."""
    shape = tuple(_or_one(rng, n) for n in (frame.batch, frame.heads, frame.q_len, frame.k_len))
    return shape[rng.randint(0, 2) :]


def _window(rng: Random, frame: Frame) -> Mask:
    left, right = (rng.choice([None, rng.randint(0, frame.k_len + 1), rng.randint(0, 3)]) for _ in range(2))
    return SlidingWindow(left, right)


def _document(rng: Random, frame: Frame) -> Mask:
    reach = max(frame.q_len, frame.k_len) + rng.randint(0, 2)
    rows = _or_one(rng, frame.batch)
    torn = rng.random() < 0.3

    def ids() -> Tensor:
        table = torch.tensor([_ids(rng, reach, torn=torn) for _ in range(rows)], dtype=torch.int64).reshape(rows, reach)
        table = table.to(rng.choice([torch.int64, torch.int32]))
        return table[0] if rows == 1 and rng.random() < 0.5 else table

    # Ids of their own for the keys go by position, which default positions give only for equal lengths.
    crossed = (frame.q_len == frame.k_len or not frame.by_default) and rng.random() < 0.3
    return Document(ids(), ids() if crossed else None)


def _ids(rng: Random, length: int, *, torn: bool) -> list[int]:
    ids, now = [], rng.randint(0, 2)
    for _ in range(length):
        if rng.random() < 0.25:
            now = rng.randint(-1, 3) if torn else now + rng.randint(1, 2)
        ids.append(now)
    return ids


def _padding(rng: Random, frame: Frame) -> Mask:
    rows = _or_one(rng, frame.batch)
    return Padding(torch.tensor([rng.randint(0, frame.k_len + 1) for _ in range(rows)], dtype=torch.int64))


def _valid(rng: Random, frame: Frame) -> Mask:
    return Padding.from_valid(random_bits(rng, (_or_one(rng, frame.batch), frame.k_len)))


def _predicate(rng: Random, frame: Frame) -> Mask:
    if rng.random() < 0.5:
        modulus = rng.randint(2, 4)
        return Predicate(SumIs(modulus, rng.randrange(modulus)))
    return Predicate(HeadReach(rng.randint(0, 3), rng.randint(0, 2)))


PRIMITIVES: tuple[Callable[[Random, Frame], Mask], ...] = (
    lambda rng, frame: Causal(),
    _window,
    lambda rng, frame: Prefix(rng.randint(0, frame.k_len + 1)),
    lambda rng, frame: Chunked(rng.randint(1, frame.k_len + 1)),
    lambda rng, frame: Dilated(rng.randint(1, 4)),
    _document,
    _padding,
    _valid,
    lambda rng, frame: Dense(random_bits(rng, _broadcastable(rng, frame))),
    _predicate,
    lambda rng, frame: Everything(),
    lambda rng, frame: Nothing(),
)
"""One maker for each kind of mask that is no combination of others."""


def _alibi(rng: Random, frame: Frame) -> ScoreModification:
    if rng.random() < 0.5 and frame.heads:
        return Alibi.for_heads(frame.heads)
    return Alibi(nn.Parameter(0.3 * random_normal(rng, (frame.heads,), _side_dtype(rng))))


def _bias(rng: Random, frame: Frame) -> ScoreModification:
    bias = random_normal(rng, _broadcastable(rng, frame), _side_dtype(rng))
    match rng.randrange(3):
        case 0:
            return Bias(bias)
        case 1:
            return Bias(bias.requires_grad_())
        case _:
            return Bias(nn.Parameter(bias))


def _relative_bias(rng: Random, frame: Frame) -> ScoreModification:
    made = RelativeBias(frame.heads, buckets=8, max_distance=16, bidirectional=rng.random() < 0.5)
    made.table.data = random_normal(rng, tuple(made.table.shape))
    return made


def _opaque(rng: Random, frame: Frame) -> ScoreModification:
    if rng.random() < 0.5:
        return ScoreMod(HeadGate(random_normal(rng, (frame.heads,)).requires_grad_()))
    return ScoreMod(DistanceGate(random_normal(rng, ())))


def _side_dtype(rng: Random) -> torch.dtype:
    return rng.choice([torch.float32, torch.float64, torch.bfloat16])


SCORE_CHANGES: tuple[Callable[[Random, Frame], ScoreModification], ...] = (
    lambda rng, frame: Softcap(rng.choice([0.5, 2.0, 30.0])),
    _alibi,
    _bias,
    _relative_bias,
    _opaque,
)
"""One maker for each kind of score change."""

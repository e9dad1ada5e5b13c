"""How rotary frequencies are stretched so that a model reads beyond the length it was trained on, as values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, describe
from regard.masks.base import checked_int


class RotaryScaling(ABC):
    """Base of the scalings of `RotaryEmbedding`: which frequencies it turns by, and how long its vectors become."""

    @property
    def magnitude(self) -> float:
        """The factor of rotated queries and of rotated keys."""
        return 1.0

    @property
    def trained_length(self) -> int | None:
        """The length beyond which the frequencies follow the length of the sequence; None where they never do."""
        return None

    @abstractmethod
    def frequencies(self, dim: int, base: float, positions: Tensor) -> Tensor:
        """Radians a token ``(dim / 2,)``, float64, from fast to slow; ``positions`` are those of the call."""


def plain_frequencies(dim: int, base: float | Tensor, device: torch.device) -> Tensor:
    """``θ_j = base^(-2j / dim)``, ``(dim / 2,)``, float64 (RoFormer, Su et al. 2021, arXiv:2104.09864)."""
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
    return base**-exponent


@dataclass(frozen=True)
class LinearScaling(RotaryScaling):
    """Position interpolation: ``θ_j / factor`` (Chen et al. 2023, arXiv:2306.15595).

    Args:
        factor: how many times longer the sequences become; at least 1.

    Raises:
        KindError, ArgumentError: no number, or a number below 1.
    """

    factor: float

    def __post_init__(self) -> None:
        _check_at_least("factor", self.factor, 1.0)

    def frequencies(self, dim: int, base: float, positions: Tensor) -> Tensor:
        return plain_frequencies(dim, base, positions.device) / self.factor


@dataclass(frozen=True)
class DynamicNTK(RotaryScaling):
    """A base that grows with the sequence: slow frequencies stretch, the fastest stays.

    For a call whose largest position is ``L - 1``, and ``L`` no less than ``original_length``,
    ``base' = base · (factor · L / original_length - (factor - 1))^(dim / (dim - 2))``, as in the models that call it
    "dynamic" (described in the YaRN paper, Peng et al. 2023, arXiv:2309.00071, section 3.3). The keys of a sequence
    turn by other frequencies when it grows beyond ``original_length``; a cache, whose keys have been turned, is refused
    from there on.

    Args:
        factor: how fast the base grows; at least 1.
        original_length: the length that the model was trained on, in tokens.

    Raises:
        KindError, ArgumentError: a value of the wrong type or outside its domain.
    """

    factor: float
    original_length: int

    def __post_init__(self) -> None:
        _check_at_least("factor", self.factor, 1.0)
        checked_int("original_length", self.original_length, 1)

    @property
    def trained_length(self) -> int | None:
        return self.original_length

    def frequencies(self, dim: int, base: float, positions: Tensor) -> Tensor:
        if dim == 2:
            return plain_frequencies(dim, base, positions.device)
        floor = positions.new_tensor([self.original_length])
        length = torch.cat([positions.flatten() + 1, floor]).max().double()
        growth = self.factor * length / self.original_length - (self.factor - 1)
        return plain_frequencies(dim, base * growth ** (dim / (dim - 2)), positions.device)


@dataclass(frozen=True)
class YaRN(RotaryScaling):
    """Interpolation by wavelength, and longer vectors (Peng et al. 2023, arXiv:2309.00071).

    Frequency ``j`` turns ``r_j = original_length · θ_j / 2π`` times in the trained length. Those with ``r_j`` above
    ``beta_fast`` stay, those below ``beta_slow`` are divided by ``factor``, and between them, over the index ``j``, the
    two are mixed linearly. Rotated queries and keys are multiplied by ``0.1 ln(factor) + 1`` each, so that a score is
    multiplied by its square.

    Args:
        factor: how many times longer the sequences become; at least 1.
        original_length: the length that the model was trained on, in tokens.
        beta_fast: turns from which a frequency stays.
        beta_slow: turns up to which a frequency is divided.
        attention_factor: another factor of queries and keys.
        truncate: whether the ends of the ramp are rounded outwards to whole indices, as in most published models;
            gpt-oss does not.

    Raises:
        KindError, ArgumentError: a value of the wrong type or outside its domain.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        _check_at_least("factor", self.factor, 1.0)
        checked_int("original_length", self.original_length, 1)
        _check_above("beta_slow", self.beta_slow, 0.0)
        _check_above("beta_fast", self.beta_fast, self.beta_slow)
        if self.attention_factor is not None:
            _check_above("attention_factor", self.attention_factor, 0.0)

    @property
    def magnitude(self) -> float:
        return 0.1 * math.log(self.factor) + 1.0 if self.attention_factor is None else self.attention_factor

    def frequencies(self, dim: int, base: float, positions: Tensor) -> Tensor:
        plain = plain_frequencies(dim, base, positions.device)
        first, last = (self._index(turns, dim, base) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, dim - 1)
        # A ramp between equal ends is a step.
        width = last - first if last != first else 1e-3
        index = torch.arange(dim // 2, dtype=torch.float64, device=positions.device)
        divided = ((index - first) / width).clamp(0, 1)
        return plain * (1 - divided) + plain / self.factor * divided

    def _index(self, turns: float, dim: int, base: float) -> float:
        """The index ``j``, a fraction, of the frequency that turns so many times in the trained length."""
        return dim * math.log(self.original_length / (2 * math.pi * turns)) / (2 * math.log(base))


@dataclass(frozen=True)
class Llama3Scaling(RotaryScaling):
    """Interpolation by wavelength as in Llama 3.1 (Llama team 2024, arXiv:2407.21783, and its published weights).

    Frequency ``j`` turns ``r_j = original_length · θ_j / 2π`` times in the trained length. Those with ``r_j`` above
    ``high_freq_factor`` stay, those below ``low_freq_factor`` are divided by ``factor``, and between them the two are
    mixed with the share ``(r_j - low_freq_factor) / (high_freq_factor - low_freq_factor)`` of the undivided one.

    Args:
        factor: how many times longer the sequences become; at least 1.
        original_length: the length that the model was trained on, in tokens.
        low_freq_factor: turns up to which a frequency is divided.
        high_freq_factor: turns from which a frequency stays.

    Raises:
        KindError, ArgumentError: a value of the wrong type or outside its domain.
    """

    factor: float = 8.0
    original_length: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        _check_at_least("factor", self.factor, 1.0)
        checked_int("original_length", self.original_length, 1)
        _check_above("low_freq_factor", self.low_freq_factor, 0.0)
        _check_above("high_freq_factor", self.high_freq_factor, self.low_freq_factor)

    def frequencies(self, dim: int, base: float, positions: Tensor) -> Tensor:
        plain = plain_frequencies(dim, base, positions.device)
        turns = self.original_length * plain / (2 * math.pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return plain * kept + plain / self.factor * (1 - kept)


def _check_at_least(name: str, value: object, least: float) -> None:
    _check_number(name, value)
    if not (value >= least and math.isfinite(value)):  # type: ignore[operator,arg-type]
        raise ArgumentError(f"{name} must be at least {least} and finite: got {value}.")


def _check_above(name: str, value: object, bound: float) -> None:
    _check_number(name, value)
    if not (value > bound and math.isfinite(value)):  # type: ignore[operator,arg-type]
        raise ArgumentError(f"{name} must be above {bound} and finite: got {value}.")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise KindError(f"{name} must be a number: got {describe(value)}.")

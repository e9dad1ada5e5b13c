"""Padding: sequences of different lengths in one batch."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Self

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard._errors import KindError, ShapeError, describe
from regard.masks.base import Mask, check_batch, check_device, summary
from regard.masks.intervals import RowIntervals, column_runs, position_range


class Padding(Mask):
    """The keys of batch entry ``b`` at positions ``k < lengths[b]``: the rest is padding on the right.

    For padding on any side, `Padding.from_valid` takes the tokenizer's attention mask.

    Args:
        lengths: integer tensor ``(B,)``.

    Raises:
        KindError: no integer tensor.
        ShapeError: not one number per batch entry.
    """

    def __init__(self, lengths: Tensor) -> None:
        if not isinstance(lengths, Tensor) or lengths.dtype not in _INTEGERS:
            raise KindError(
                f"Padding takes an integer tensor of lengths, one per batch entry: got {describe(lengths)}. "
                "A bool attention mask goes to Padding.from_valid(mask)."
            )
        if lengths.ndim != 1:
            raise ShapeError(f"Padding's lengths must be (B,): got {tuple(lengths.shape)}.")
        self.lengths = lengths

    @staticmethod
    def from_valid(valid: Tensor) -> Mask:
        """The keys at the columns where ``valid``, bool ``(B, k_len)``, is true; padding on any side.

        Raises:
            KindError: no bool tensor. (A tokenizer's 0/1 attention mask: ``Padding.from_valid(mask.bool())``.)
        """
        return ValidKeys(valid)

    def allowed(self, at: Coordinates) -> Tensor:
        if self.lengths.shape[0] == 1:
            return at.k < self.lengths
        return at.k < self.lengths[at.b]

    def intervals(self, frame: Frame) -> RowIntervals | None:
        return position_range(frame, None, self.lengths[:, None].to(torch.int64))

    def check(self, frame: Frame) -> None:
        check_device("Padding's lengths", self.lengths, frame)
        check_batch("Padding", self.lengths.shape[0], frame)

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.lengths,)

    @property
    def batch(self) -> int:
        return self.lengths.shape[0]

    def _key(self) -> Hashable:
        return "Padding"

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        return type(self)(*tensors)

    def __repr__(self) -> str:
        return f"Padding({summary(self.lengths)})"


class ValidKeys(Mask):
    """The keys at the true columns of a bool tensor. Made by `Padding.from_valid`."""

    def __init__(self, valid: Tensor) -> None:
        if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
            raise KindError(
                f"Padding.from_valid takes a bool tensor, True = a real token: got {describe(valid)}. "
                "Convert a 0/1 attention mask with .bool()."
            )
        if valid.ndim != 2:
            raise ShapeError(f"Padding.from_valid takes (B, k_len): got {tuple(valid.shape)}.")
        self.valid = valid

    def allowed(self, at: Coordinates) -> Tensor:
        if at.box is not None:
            batch, _, _, cols = at.box
            valid = self.valid if self.valid.shape[0] == 1 else self.valid[batch]
            return valid[:, None, None, cols]
        b = at.b if self.valid.shape[0] > 1 else torch.zeros_like(at.b)
        return self.valid[b, at.j]

    def intervals(self, frame: Frame) -> RowIntervals | None:
        return column_runs(self.valid, frame)

    def check(self, frame: Frame) -> None:
        check_device("Padding.from_valid's tensor", self.valid, frame)
        check_batch("Padding.from_valid's tensor", self.valid.shape[0], frame)
        if self.valid.shape[1] != frame.k_len:
            raise ShapeError(
                f"Padding.from_valid's tensor says which keys are real and must have k_len = {frame.k_len} columns: "
                f"got {tuple(self.valid.shape)}."
            )

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.valid,)

    @property
    def batch(self) -> int:
        return self.valid.shape[0]

    @property
    def extent(self) -> tuple[int | None, int | None]:
        return None, self.valid.shape[1]

    def _key(self) -> Hashable:
        return "Padding.from_valid"

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        return type(self)(*tensors)

    def __repr__(self) -> str:
        return f"Padding.from_valid({summary(self.valid)})"


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

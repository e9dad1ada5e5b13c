"""A mask of one's own: a definition and a name are enough for everything else."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Self

import torch
from torch import Tensor

import regard as rg
from regard._coordinates import Coordinates
from regard.masks.base import Stateless


class EveryOther(Stateless):
    """A query sees the keys of its own parity."""

    def allowed(self, at: Coordinates) -> Tensor:
        return (at.q - at.k) % 2 == 0

    def __repr__(self) -> str:
        return "EveryOther()"


class Landmarks(rg.Mask):
    """Every query sees the keys at some positions."""

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions

    def allowed(self, at: Coordinates) -> Tensor:
        return torch.isin(at.k, self.positions)

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.positions,)

    def _key(self) -> Hashable:
        return "Landmarks"

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        return type(self)(*tensors)


def test_a_mask_without_tensors() -> None:
    mask = rg.Causal() & EveryOther()
    assert mask.dense(7, 7).equal((rg.Causal() & rg.Dilated(2)).dense(7, 7))
    assert mask.blocks(7, 7, (3, 2)).grid().equal((rg.Causal() & rg.Dilated(2)).blocks(7, 7, (3, 2)).grid())
    assert mask.show(2, 3).splitlines()[1:] == ["1   · ■ ·", "2   ■ · ■"]
    assert EveryOther() == EveryOther()
    assert EveryOther() & ~EveryOther() == rg.Nothing()
    assert repr(~mask) == "~(Causal() & EveryOther())"


def test_a_mask_with_tensors() -> None:
    positions = torch.tensor([0, 3])
    mask = rg.SlidingWindow(1) | Landmarks(positions)
    assert mask.dense(1, 6)[0, 0, 0].tolist() == [True, False, False, True, True, True]
    assert mask == Landmarks(positions) | rg.SlidingWindow(1)
    assert mask.equal(rg.SlidingWindow(1) | Landmarks(positions.clone()))
    assert mask.map(lambda t: t + 1).dense(1, 6)[0, 0, 0].tolist() == [False, True, False, False, True, True]


def test_attention_takes_it() -> None:
    q, k, v = torch.randn(3, 2, 7, 4).unbind()
    for backend in ("reference", "blockwise"):
        ours = rg.attention(q, k, v, mask=EveryOther(), backend=backend)
        torch.testing.assert_close(ours, rg.attention(q, k, v, mask=rg.Dilated(2), backend=backend))

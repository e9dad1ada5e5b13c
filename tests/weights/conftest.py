"""Seeded calls of every kind, looked into through the backends that can give lse for anything."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.testing.cases import Case, make_case
from regard.weights import stream

Pick = Callable[[Tensor], Tensor]


@pytest.fixture(params=range(40), ids="case{}".format)
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


@pytest.fixture(params=["reference", "blockwise"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def small_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a few scores, so that short sequences cross many of them; long ones do with the usual tiles."""
    if "case" in request.fixturenames and request.getfixturevalue("case").dout.shape[-2] > 50:
        return
    monkeypatch.setattr(stream, "BLOCK", (3, 5))
    monkeypatch.setattr(stream, "TILE", 40)
    monkeypatch.setattr(stream, "WIDE", 5)


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    """2 entries, 4 query heads on 2, 7 queries, 11 keys; float64 with gradients."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return normal(2, 4, 7, 3), normal(2, 2, 11, 3), normal(2, 2, 11, 5)


@pytest.fixture
def weights(qkv: tuple[Tensor, Tensor, Tensor], backend: str) -> rg.AttentionWeights:
    """Causal weights ``(2, 4, 7, 11)``."""
    return rg.inspect(*qkv, mask=rg.Causal(), backend=backend).weights

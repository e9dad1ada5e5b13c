"""Masks inside `torch.compile(fullgraph=True)`: built, combined and evaluated without a graph break."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import regard as rg

IDS = torch.tensor([0, 0, 1, 1, 1, 2, 2])
LENGTHS = torch.tensor([3, 7])
TABLE = torch.arange(2 * 5 * 7).reshape(2, 1, 5, 7) % 3 > 0

BUILT: dict[str, Callable[[], rg.Mask]] = {
    "causal": rg.Causal,
    "window": lambda: rg.SlidingWindow(2, 1),
    "prefix": lambda: rg.Prefix(3),
    "chunked": lambda: rg.Chunked(3),
    "dilated": lambda: rg.Dilated(2),
    "document": lambda: rg.Document(IDS),
    "padding": lambda: rg.Padding(LENGTHS),
    "valid": lambda: rg.Padding.from_valid(TABLE[:, 0, 0]),
    "dense": lambda: rg.Dense(TABLE),
    "predicate": lambda: rg.Predicate(lambda b, h, q, k: (q + k) % 3 > 0),
    "everything": rg.Everything,
    "and": lambda: rg.Causal() & rg.SlidingWindow(2) & rg.Document(IDS),
    "or-not": lambda: rg.masks.Not(rg.Padding(LENGTHS)) | rg.Causal() & rg.Prefix(2),
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def compiled(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(fn, fullgraph=True, backend="eager")


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT.keys())
def test_a_mask_built_outside_is_evaluated_inside(build: Callable[[], rg.Mask]) -> None:
    mask = build()

    def over(x: Tensor) -> Tensor:
        return mask.over(mask.frame(5, x.shape[0], batch=2)).to(x.dtype) * x

    x = torch.arange(7.0)
    assert compiled(over)(x).equal(over(x))


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT.keys())
def test_a_mask_is_built_inside(build: Callable[[], rg.Mask]) -> None:
    def dense(x: Tensor) -> Tensor:
        return build().dense(5, x.shape[0], batch=2).to(x.dtype) * x

    x = torch.arange(7.0)
    assert compiled(dense)(x).equal(dense(x))


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT.keys())
def test_masks_are_combined_inside(build: Callable[[], rg.Mask]) -> None:
    held = rg.Causal()
    given = build()

    def dense(x: Tensor) -> Tensor:
        return (held & given).dense(5, x.shape[0], batch=2).to(x.dtype) * x

    x = torch.arange(7.0)
    assert compiled(dense)(x).equal(dense(x))


def test_new_document_ids_do_not_recompile() -> None:
    counter = torch._dynamo.testing.CompileCounter()

    def dense(ids: Tensor) -> Tensor:
        return (rg.Causal() & rg.Document(ids)).dense(7, 7)

    step = torch.compile(dense, fullgraph=True, backend=counter)
    for ids in (IDS, IDS.flip(0), torch.zeros_like(IDS)):
        assert step(ids).equal(dense(ids))
    assert counter.frame_count == 1


def test_positions_are_read_inside() -> None:
    def dense(q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return (rg.SlidingWindow(2) | rg.Prefix(1)).dense(5, 7, q_positions, k_positions)

    positions = torch.tensor([[0, 5, 2, 9, -1], [1, 1, 3, 4, 6]]), torch.arange(7).roll(3)
    assert compiled(dense)(*positions).equal(dense(*positions))

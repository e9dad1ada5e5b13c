"""Streaming holds memory of the order of the sequence, whatever its length."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import regard as rg
from regard.weights.stream import TILE

LENGTH = 16_384


class Largest(TorchDispatchMode):
    """The size in elements of the largest storage that any operation returns a tensor on."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *(x.untyped_storage().nbytes() // x.element_size() for x in made)])
        return result


@contextmanager
def at_most(elements: int) -> Iterator[None]:
    with Largest() as seen:  # type: ignore[no-untyped-call]  # torch's own constructor
        yield
    assert 0 < seen.elements <= elements, f"a tensor of {seen.elements} elements was made"


USES: dict[str, Callable[[rg.AttentionWeights], object]] = {
    "stats": lambda w: w.stats(),
    "topk": lambda w: w.topk(4),
    "pool": lambda w: w.pool(64, 64),
    "segments": lambda w: w.segments(torch.arange(LENGTH) // 4096),
    "diagonal": lambda w: w.diagonal(1),
    "slice": lambda w: w[0, LENGTH - 20 :, -30:],
}


@pytest.mark.parametrize("use", USES)
def test_no_tensor_comes_near_all_pairs(use: str) -> None:
    """The bound, a tile or a few times the inputs, is a hundredth of Lq x Lk; documents keep the pass short."""
    q = torch.randn(1, LENGTH, 2, generator=torch.Generator().manual_seed(10))
    document = rg.Document.from_lengths([1000, 5000, 2384, 8000])
    with at_most(max(2 * TILE, 8 * LENGTH)):
        weights = rg.inspect(q, q, q, mask=rg.Causal() & document, backend="blockwise").weights
        USES[use](weights)


def test_the_measure_sees_a_dense_tensor() -> None:
    q = torch.randn(1, 2048, 2)
    weights = rg.inspect(q, q, q).weights
    with pytest.raises(AssertionError, match="a tensor of 4194304 elements"), at_most(2 * TILE):
        weights.dense()

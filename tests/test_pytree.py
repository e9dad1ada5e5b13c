"""Masks and score changes as pytrees: the tensors are the leaves, everything else is the structure."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

import regard as rg

IDS = torch.tensor([0, 0, 1])

VALUES: dict[str, tuple[object, int]] = {
    "causal": (rg.Causal(), 0),
    "document": (rg.Document(IDS), 1),
    "two ids": (rg.Document(IDS, IDS.flip(0)), 2),
    "tree": ((rg.Causal() & rg.Document(IDS)) | ~rg.Padding(torch.tensor([2])), 2),
    "predicate": (rg.Predicate(lambda b, h, q, k: q >= k), 0),
    "softcap": (rg.Softcap(2.0), 0),
    "alibi": (rg.Alibi.for_heads(2), 1),
    "bias": (rg.Bias(torch.nn.Parameter(torch.zeros(3))), 1),
    "relative": (rg.RelativeBias(2), 1),
}


@pytest.mark.parametrize(("value", "leaves"), VALUES.values(), ids=VALUES)
def test_it_comes_back_with_the_same_tensors(value: object, leaves: int) -> None:
    tensors, structure = pytree.tree_flatten(value)
    assert len(tensors) == leaves
    assert all(isinstance(t, torch.Tensor) for t in tensors)
    again = pytree.tree_unflatten(tensors, structure)
    assert type(again) is type(value)
    assert repr(again) == repr(value)
    assert all(a is b for a, b in zip(pytree.tree_leaves(again), tensors, strict=True))
    if isinstance(value, rg.Mask):
        assert again == value
    if isinstance(value, torch.nn.Module) and isinstance(again, torch.nn.Module):
        assert dict(again.named_parameters()).keys() == dict(value.named_parameters()).keys()


def test_the_structure_tells_values_apart() -> None:
    def structure(value: object) -> pytree.TreeSpec:
        return pytree.tree_structure(value)

    assert structure(rg.Document(IDS)) == structure(rg.Document(IDS.flip(0)))
    assert structure(rg.SlidingWindow(2)) != structure(rg.SlidingWindow(3))
    assert structure(rg.Document(IDS)) != structure(rg.Padding(IDS))


def test_the_structure_can_be_saved() -> None:
    structure = pytree.tree_structure(VALUES["tree"][0])
    assert pytree.treespec_loads(pytree.treespec_dumps(structure)) == structure


def test_a_mask_of_ones_own_is_a_pytree() -> None:
    class Before(rg.Mask):
        def __init__(self, limit: torch.Tensor) -> None:
            self.limit = limit

        def allowed(self, at: object) -> torch.Tensor:
            raise NotImplementedError

        def _key(self) -> str:
            return "Before"

    (leaf,) = pytree.tree_leaves(rg.Causal() & Before(IDS))
    assert leaf is IDS

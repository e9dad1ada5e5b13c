"""Lazy weights that answer like the tensors that models return as ``attentions``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from regard.weights import AttentionWeights


class Attentions(AttentionWeights):
    """One layer's entry of ``outputs.attentions``, ``(B, H, Lq, Lk)``: `AttentionWeights` that also act as a tensor.

    Indexing gives tensors, and whatever a tensor can do and lazy weights cannot (arithmetic, ``.mean(-1)``,
    ``torch.stack``, ``.numpy()``) is done on the tensor of all weights, where that takes no more than 64 MiB, and is
    refused otherwise. The names that both have, ``.max()``, ``.topk(k)`` and ``.diagonal(offset)``, mean what they
    mean for lazy weights. The weights are those before dropout.
    """

    @classmethod
    def of(cls, weights: AttentionWeights) -> Self:
        """The same weights, acting as a tensor."""
        made = object.__new__(cls)
        made.__dict__.update(weights.__dict__)
        return made

    def size(self, dim: int | None = None) -> torch.Size | int:
        """The shape, or one of its sizes."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of dims, 4."""
        return self.ndim

    def numel(self) -> int:
        """The number of weights."""
        return self.shape.numel()

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # what lazy weights refuse, a tensor does
        return (self[b] for b in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(f"attention weights have no attribute {name!r}, and neither have tensors")
        return getattr(self.dense(), name)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(Attentions, Attentions.dense, (tuple(args), kwargs or {}))
        return func(*args, **kwargs)


def _on_the_tensor(name: str) -> Callable[..., Any]:
    operation = getattr(Tensor, name)

    def apply(self: Attentions, *others: Any) -> Any:
        others = tree_map_only(Attentions, Attentions.dense, others)
        return operation(self.dense(), *others)

    return apply


for _name in (
    *("__add__", "__sub__", "__mul__", "__matmul__", "__truediv__", "__pow__", "__neg__", "__abs__"),
    *("__radd__", "__rsub__", "__rmul__", "__rmatmul__", "__rtruediv__", "__rpow__"),
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__float__", "__bool__"),
):
    setattr(Attentions, _name, _on_the_tensor(_name))

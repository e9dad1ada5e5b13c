"""A mask given as a function."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from regard._coordinates import Coordinates
from regard._errors import KindError, describe
from regard.masks.base import Mask


class Predicate(Mask):
    """``fn(b, h, q, k)`` is true where query ``q`` of batch entry ``b`` and head ``h`` may attend to key ``k``.

    The function gets int64 tensors that broadcast together: flattened batch index, query head, absolute query and key
    positions. It must work pair by pair (comparisons, arithmetic, look-ups such as ``table[h, k]``) and return bool.
    Two predicates are equal when they hold the same function.

    Raises:
        KindError: no callable, or a function that returns no bool tensor.

    >>> print(Predicate(lambda b, h, q, k: (q + k) % 3 == 0).show(3, 3))
        0 1 2
    0   ■ · ·
    1   · · ■
    2   · ■ ·
    """

    def __init__(self, fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
        if not callable(fn):
            raise KindError(f"Predicate takes a function fn(b, h, q, k) -> bool tensor: got {describe(fn)}.")
        self.fn = fn

    def allowed(self, at: Coordinates) -> Tensor:
        allowed = self.fn(at.b, at.h, at.q, at.k)
        if not isinstance(allowed, Tensor) or allowed.dtype != torch.bool:
            raise KindError(
                f"Predicate's function must return a bool tensor, True = may attend: got {describe(allowed)}."
            )
        return allowed

    def _key(self) -> Hashable:
        return ("Predicate", self.fn)

    def __repr__(self) -> str:
        return f"Predicate({getattr(self.fn, '__qualname__', self.fn)})"

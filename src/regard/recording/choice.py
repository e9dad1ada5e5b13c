"""Which layers, heads and queries are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, describe

Layers = int | str | Sequence[int | str] | None
Heads = int | Sequence[int] | Mapping[int, Sequence[int]] | None
Queries = int | slice | Sequence[int] | None


class HeadChoice(NamedTuple):
    """The recorded query heads of a layer, and the key heads that serve them in regular groups.

    Attributes:
        heads: numbers of the query heads, ascending.
        kv: the key head of each group; ``len(heads)`` is a multiple of their number.
    """

    heads: tuple[int, ...]
    kv: tuple[int, ...]


class Choice:
    """The arguments ``layers``, ``heads`` and ``queries`` of `regard.record`, checked.

    Raises:
        KindError: another type.
        ArgumentError: a negative number of a layer or head, an empty choice.
    """

    def __init__(self, layers: Layers, heads: Heads, queries: Queries) -> None:
        self.layers = None if layers is None else _layers(layers)
        self._heads = None if heads is None or isinstance(heads, Mapping) else _numbers("heads", heads)
        self._by_layer = (
            {_number("heads", n): _numbers("heads", one) for n, one in heads.items()}
            if isinstance(heads, Mapping)
            else {}
        )
        self.queries = _queries(queries)

    def wants(self, name: str, index: int) -> bool:
        """Whether a layer is recorded, given its name and number."""
        if self._by_layer and index not in self._by_layer:
            return False
        if self.layers is None:
            return True
        return any(one == index if isinstance(one, int) else fnmatchcase(name, one) for one in self.layers)

    def heads(self, index: int, count: int, kv_count: int) -> HeadChoice:
        """The heads of a layer that has ``count`` query heads on ``kv_count`` key heads.

        Raises:
            ArgumentError: a head that the layer does not have.
        """
        chosen = self._by_layer.get(index, self._heads)
        if chosen is None:
            return HeadChoice(tuple(range(count)), tuple(range(kv_count)))
        if max(chosen) >= count:
            raise ArgumentError(f"heads= names head {max(chosen)}, and layer {index} has heads 0 … {count - 1}.")
        group = count // kv_count
        served = [head // group for head in chosen]
        kv = sorted(set(served))
        even = len(served) // len(kv)
        if len({served.count(one) for one in kv}) == 1 and served == [one for one in kv for _ in range(even)]:
            return HeadChoice(chosen, tuple(kv))
        return HeadChoice(chosen, tuple(served))

    def rows(self, positions: Tensor) -> Tensor | None:
        """The rows that are recorded of a call whose queries stand at ``positions (Lq,)``; None for all.

        Negative numbers count from the last query of the call.
        """
        if self.queries is None:
            return None
        total = int(positions.max()) + 1 if positions.numel() else 0
        if isinstance(self.queries, slice):
            chosen = range(total)[self.queries]
            lowest, highest = (min(chosen), max(chosen)) if chosen else (0, -1)
            inside = (positions >= lowest) & (positions <= highest)
            wanted = inside & ((positions - lowest) % abs(chosen.step) == 0)
        else:
            places = torch.tensor([n + total if n < 0 else n for n in self.queries], device=positions.device)
            wanted = torch.isin(positions, places)
        return wanted.nonzero()[:, 0]


def _layers(layers: object) -> tuple[int | str, ...]:
    given = (layers,) if isinstance(layers, int | str) else layers
    if not isinstance(given, Sequence) or not all(isinstance(x, int | str) and not isinstance(x, bool) for x in given):
        raise KindError(
            "layers= takes numbers of layers, names such as 'layers.3.self_attn' or patterns such as 'decoder.*': got "
            f"{describe(layers)}."
        )
    if not given or any(isinstance(x, int) and x < 0 for x in given):
        raise ArgumentError(f"layers= names at least one layer by a number from 0 on or by its name: got {layers!r}.")
    return tuple(given)


def _numbers(name: str, given: object) -> tuple[int, ...]:
    numbers = (given,) if isinstance(given, int) else given
    if not isinstance(numbers, Sequence | range) or isinstance(numbers, str) or not numbers:
        raise KindError(f"{name}= takes at least one number, or numbers for each layer: got {describe(given)}.")
    return tuple(sorted({_number(name, one) for one in numbers}))


def _number(name: str, one: object) -> int:
    if not isinstance(one, int) or isinstance(one, bool):
        raise KindError(f"{name}= takes ints: got {describe(one)}.")
    if one < 0:
        raise ArgumentError(f"{name}= takes numbers from 0 on: got {one}.")
    return one


def _queries(queries: object) -> slice | tuple[int, ...] | None:
    if queries is None or isinstance(queries, slice):
        return queries
    numbers = (queries,) if isinstance(queries, int) else queries
    if not isinstance(numbers, Sequence | range) or isinstance(numbers, str) or not numbers:
        raise KindError(f"queries= takes a slice such as slice(-64, None), or positions: got {describe(queries)}.")
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in numbers):
        raise KindError(f"queries= takes positions as ints: got {describe(queries)}.")
    return tuple(numbers)

"""Statistics by name, as `regard.inspect` and `AttentionWeights.stats` take them.

A name, or a tuple of a name and its arguments: ``"entropy"``, ``("topk", 8)``, ``("pool", 512, 512, "max")``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from regard._call import Call
from regard._errors import ArgumentError, describe
from regard.weights.reductions import Entropy, MassPool, Max, MaxLogit, MaxPool, Received
from regard.weights.stream import Reduction
from regard.weights.topk import TopK

Statistic: TypeAlias = str | tuple[Any, ...]

_PLAIN: dict[str, Callable[[Call], Reduction]] = {
    "entropy": Entropy,
    "max": Max,
    "max_logit": MaxLogit,
    "received": Received,
}
_POOLS = {"mass": MassPool, "max": MaxPool}
_KNOWN = ", ".join((*map(repr, _PLAIN), '("topk", k)', '("pool", rows, cols)', '("pool", rows, cols, "max")'))


def checked(call: Call, asked: object) -> tuple[Statistic, ...]:
    """What was asked for, each statistic once.

    Raises:
        ArgumentError: no sequence, an unknown statistic, arguments out of range.
    """
    if isinstance(asked, str) or not isinstance(asked, Sequence):
        raise ArgumentError(f"stats takes a sequence out of {_KNOWN}: got {describe(asked)}.")
    return tuple(dict.fromkeys(checked_one(call, one) for one in asked))


def checked_one(call: Call, asked: object) -> Statistic:
    """One statistic; raises as `checked`."""
    match asked:
        case str() if asked in _PLAIN:
            return asked
        case ("topk", k):
            return "topk", _count("k", k)
        case ("pool", rows, cols):
            return "pool", *_bins(call, rows, cols)
        case ("pool", rows, cols, kind):
            if kind not in tuple(_POOLS):
                raise ArgumentError(f"kind is 'mass' or 'max': got {describe(kind)}.")
            return "pool", *_bins(call, rows, cols), kind
    raise ArgumentError(
        f"stats are some of {_KNOWN}: got {describe(asked)}. Everything else is a method of .weights, such as "
        ".weights.received(rows) or .weights.segments(ids)."
    )


def reduction(call: Call, asked: Statistic) -> Reduction:
    """What gathers a checked statistic."""
    match asked:
        case str():
            return _PLAIN[asked](call)
        case ("topk", k):
            return TopK(call, k)
        case (_, rows, cols, *kind):
            return _POOLS[kind[0] if kind else "mass"](call, rows, cols)
    raise AssertionError(asked)


def _bins(call: Call, rows: object, cols: object) -> tuple[int, int]:
    counts = _count("rows", rows), _count("cols", cols)
    for name, bins, size in zip(("rows", "cols"), counts, (call.q.shape[2], call.k.shape[2]), strict=True):
        if bins > size:
            raise ArgumentError(f"a map has at most one bin for each of the {size} {name} it pools: got {bins}.")
    return counts


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} is an int of at least 1: got {describe(value)}.")
    return value

"""The same pass as `stream`, by the compiled kernels where they can do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from regard._call import Call
from regard._dispatch import backend
from regard.backends.base import Gathered
from regard.weights.reductions import Entropy, MassPool, Max, MaxPool, Received
from regard.weights.stream import Reduction
from regard.weights.topk import TopK


def gathered(call: Call, lse: Tensor, reductions: Sequence[Reduction]) -> bool:
    """Show all weights to the reductions, which `Reduction.finish` then completes; False if the kernels cannot.

    Args:
        call: what the weights are of.
        lse: ``(B, H, Lq)``, 0 for rows that see nothing.
        reductions: fresh ones, over all rows.
    """
    passes: list[dict[str, Any]] = []
    for reduction in reductions:
        places = _places(reduction)
        if places is None:
            return False
        shared = (wanted for wanted in passes if _fit(wanted, places))
        free = next(shared, None)
        if free is None:
            passes.append(free := {})
        # Two that ask for the greatest scores have a place each.
        free.update({name: x for name, x in places.items() if name not in free})
    kernels = backend("native")
    if not all(kernels.gather(call, lse, Gathered(**wanted)) for wanted in passes):
        return False
    tops = [reduction.top for reduction in reductions if isinstance(reduction, Max)]
    for top in tops[1:]:
        top.copy_(tops[0])
    return True


def _places(reduction: Reduction) -> dict[str, Any] | None:
    """What the kernels have to fill for one reduction, or None if it is not theirs."""
    match reduction:
        case Entropy():
            return {"entropy": reduction.sum}
        case Max():
            return {"top": reduction.top}
        case Received():
            return {"received": reduction.sum}
        case MassPool():
            return {"mass": reduction.map}
        case MaxPool():
            return {"peak": reduction.map}
        case TopK():
            return {"best": (reduction.scores, reduction.columns)}
    return None


def _fit(wanted: dict[str, Any], more: dict[str, Any]) -> bool:
    """Whether one pass can fill both: it has one place of each name, and maps of one size."""
    maps = {x.shape for name, x in (*wanted.items(), *more.items()) if name in ("mass", "peak")}
    return len(maps) <= 1 and all(name not in wanted or name == "top" for name in more)

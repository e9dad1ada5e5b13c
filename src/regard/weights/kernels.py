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
    wanted = _wanted(reductions)
    if wanted is None or not backend("native").gather(call, lse, wanted):
        return False
    for reduction in reductions:
        # Two that ask for the same numbers have a place each.
        if isinstance(reduction, Max) and wanted.top is not None and reduction.top is not wanted.top:
            reduction.top.copy_(wanted.top)
    return True


def _wanted(reductions: Sequence[Reduction]) -> Gathered | None:
    """What the kernels have to fill, or None if one of the reductions is not theirs."""
    known: dict[str, Any] = {}
    for reduction in reductions:
        match reduction:
            case Entropy():
                known["entropy"] = reduction.sum
            case Max():
                known["top"] = reduction.top
            case Received():
                known["received"] = reduction.sum
            case MassPool():
                known["mass"] = reduction.map
            case MaxPool():
                known["peak"] = reduction.map
            case TopK():
                known["best"] = (reduction.scores, reduction.columns)
            case _:
                return None
    if "mass" in known and "peak" in known and known["mass"].shape != known["peak"].shape:
        return None
    return Gathered(**known)

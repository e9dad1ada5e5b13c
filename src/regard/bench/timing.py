"""Timing two functions against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Seconds of each run of two functions that took turns."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median, over the turns, of our time divided by theirs in the same turn."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def medians(self) -> tuple[float, float]:
        """Median seconds: ours, theirs."""
        return statistics.median(self.ours), statistics.median(self.theirs)


def alternate(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    runs: int,
    repeat: int = 1,
    seconds: float = float("inf"),
    *,
    warm: bool = False,
) -> Pair:
    """Run both once to warm up, then ``runs`` times in turn, so that a drift of the machine's speed hits both.

    A run is ``repeat`` calls, and its time that of one. No turn begins once ``seconds`` have passed; one always does.
    What is ``warm`` already needs no first run.
    """
    began = time.perf_counter()
    if not warm:
        ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < runs and (not times[0] or time.perf_counter() - began < seconds):
        for spent, function in zip(times, (ours, theirs), strict=True):
            start = time.perf_counter()
            for _ in range(repeat):
                function()
            spent.append((time.perf_counter() - start) / repeat)
    return Pair(tuple(times[0]), tuple(times[1]))

"""The benchmark as a picture: a bar a case, and time against visible pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regard._errors import MissingError
from regard.bench.growth import Growth
from regard.bench.run import Measured


def draw(measured: Sequence[Measured], growth: Growth | None, file: Path, title: str) -> None:
    """Save the picture; its format goes by the file's suffix.

    Raises:
        MissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError("pictures need matplotlib. Install it with pip install regard[plot].") from None
    figure = Figure(figsize=(10, 1.5 + 0.3 * max(len(measured), 8)), layout="constrained")
    bars, line = figure.subplots(1, 2, width_ratios=(2, 1))
    names = [one.case.name for one in measured]
    speedups = [1 / one.ratio for one in measured]
    bars.barh(names, speedups, color=["tab:green" if one.met else "tab:orange" for one in measured])
    bars.scatter([1 / one.case.target for one in measured], names, marker="|", color="black", s=80, label="promised")
    bars.axvline(1, color="grey", linewidth=1)
    bars.set(xscale="log", xlabel="times as fast as the other way")
    bars.invert_yaxis()
    bars.legend()
    if growth is None:
        line.set_visible(False)
    else:
        line.loglog(growth.pairs, growth.seconds, "o", label="measured")
        line.loglog(growth.pairs, [growth.fixed + growth.per_pair * n for n in growth.pairs], label="fitted line")
        line.set(xlabel="visible pairs", ylabel="seconds")
        line.legend()
    figure.suptitle(title, fontsize=8)
    figure.savefig(file)

"""Accuracy against distance, drawn."""

from __future__ import annotations

from pathlib import Path

from regard._errors import MissingError
from regard.recall.experiment import Result
from regard.recall.task import VALUES

_COLOURS = {"attention": "#b03868", "GRU": "#1d2b53", "LSTM": "#3f88c5"}


def draw(result: Result, path: Path) -> None:
    """Draw ``result`` to ``path``, whose ending says the format.

    Raises:
        MissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError(
            "the picture is drawn with matplotlib, which is missing: pip install 'regard[lm]'."
        ) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    distances = result.experiment.distances
    for kind, shares in result.accuracy.items():
        label = f"{kind} ({result.parameters[kind]:,} parameters)"
        axes.plot(distances, shares, marker="o", label=label, color=_COLOURS[kind])
    axes.axhline(1 / VALUES, color="grey", linewidth=0.8, linestyle=":", label="guessing")
    axes.set_xscale("log", base=2)
    axes.set_xticks(distances, [str(d) for d in distances])
    axes.set(xlabel="items between the asked one and the question", ylabel="right answers", ylim=(0, 1.03))
    axes.set_title("Associative recall, each item one token of key and value")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)

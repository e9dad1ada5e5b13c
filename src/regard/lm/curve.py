"""The picture of a training: loss against steps."""

from __future__ import annotations

import math
from pathlib import Path

from regard._errors import MissingError
from regard.lm.checkpoint import Run


def draw_curve(run: Run, path: Path) -> None:
    """Draw ``run.history`` to a PNG at ``path``, written aside and renamed.

    Raises:
        MissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingError(
            "the loss curve is drawn with matplotlib, which is missing: pip install 'regard[lm]'."
        ) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = [seen.step for seen in run.history]
    axes.plot(steps, [seen.train for seen in run.history], label="training text", color="#b03868")
    axes.plot(steps, [seen.held_out for seen in run.history], label="held-out text", color="#1d2b53", marker=".")
    axes.axhline(math.log(run.config.vocabulary), color="grey", linewidth=0.8, linestyle=":", label="guessing")
    axes.set(xlabel="step", ylabel="loss, nats a token", title=f"{run.source}: {run.step} steps")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    aside = path.with_name(f".aside-{path.name}")
    FigureCanvasAgg(figure)
    figure.savefig(aside, format="png", dpi=120)
    aside.replace(path)

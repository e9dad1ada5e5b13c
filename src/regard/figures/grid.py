"""All heads at a glance: a score as a grid of layers and heads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from regard._errors import ArgumentError, describe
from regard.figures.canvas import coordinates, families, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regard.head_scores import HeadScores

_NUMBERED = 24


def plot_scores(table: HeadScores, name: str, *, cmap: str = "cividis", numbers: bool | None = None) -> Figure:
    """One score of every head: layers down, heads across, with a colour bar.

    Args:
        table: of `Record.head_scores`.
        name: of the score.
        cmap: name of one of matplotlib's colour maps.
        numbers: whether each cell says its number; default: where there are at most 24 heads in a layer.

    Returns:
        The figure, detached from pyplot.

    Raises:
        ArgumentError: there is no such score.
        MissingError: matplotlib is not installed.
    """
    pyplot()
    from matplotlib.figure import Figure

    if name not in table.names:
        raise ArgumentError(f"this table has the scores {', '.join(table.names)}: got {describe(name)}.")
    layers = list(dict.fromkeys((head.layer, head.name) for head in table.heads))
    heads = sorted({head.head for head in table.heads})
    values = [[math.nan] * len(heads) for _ in layers]
    for head, value in zip(table.heads, table.mean[name], strict=True):
        values[layers.index((head.layer, head.name))][heads.index(head.head)] = value
    numbers = len(heads) <= _NUMBERED if numbers is None else numbers
    cell = 0.42 if numbers else 0.16
    figure = Figure(
        figsize=(1.8 + cell * max(len(heads), 4), 0.9 + 0.24 * max(len(layers), 3)), layout="constrained", dpi=150
    )
    axes = figure.subplots()
    image = axes.imshow(values, cmap=cmap, interpolation="nearest", aspect="auto")
    repeated = len({number for number, _ in layers}) < len(layers)
    names = [where if repeated else str(number) for number, where in layers]
    axes.set_yticks(range(len(layers)), names, fontsize=7, fontfamily=families())
    axes.set_xticks(range(len(heads)), [str(head) for head in heads], fontsize=7)
    axes.set_xlabel("head", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    axes.set_title(name.replace("_", " "), fontsize=9, fontfamily=families())
    coordinates(axes)
    known = [value for row in values for value in row if not math.isnan(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    if numbers:
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if not math.isnan(value):
                    bright = value - low > 0.55 * (high - low)
                    axes.text(x, y, f"{value:.2g}", ha="center", va="center", fontsize=5, color="k" if bright else "w")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25, pad=0.02)
    plural = "" if table.prompts == 1 else "s"
    bar.set_label(f"mean over {table.prompts} prompt{plural}", fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2, width=0.5)
    bar.outline.set_linewidth(0.5)
    return figure

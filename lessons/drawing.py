"""What the lessons draw with: heat maps with their numbers, and bars."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from torch import Tensor

BLUE = "#2f6fc4"
ORANGE = "#d9772b"
GREEN = "#3c8c5a"
GREY = "#8a8f98"


def heat(
    ax: Axes,
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    digits: int = 2,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """A matrix as coloured cells with its numbers in them; blue is large, red negative.

    Args:
        ax: where to draw.
        values: ``(rows, columns)``; NaN is drawn as an empty cell.
        rows: a name for each row.
        columns: a name for each column.
        title: what the matrix is.
        digits: decimals of the numbers; none are written where it is negative.
        low: the value of the lightest colour; without it the least, or minus the largest where any is negative.
        high: the value of the darkest colour; without it the largest.
    """
    known = values[~values.isnan()]
    signed = bool((known < 0).any())
    high = high if high is not None else float(known.abs().max())
    low = low if low is not None else (-high if signed else 0.0)
    colours: Colormap = plt.get_cmap("RdBu" if signed else "Blues")
    ax.imshow(values.detach().numpy(), cmap=colours, vmin=low, vmax=high, aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=0 if max(map(len, columns)) < 8 else 30)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(title, fontsize=11)
    if digits < 0:
        return
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            if value == value:
                share = (value - low) / (high - low) if high > low else 0.5
                dark = abs(share - 0.5) > 0.35 if signed else share > 0.55
                ax.text(
                    j, i, f"{value:.{digits}f}", ha="center", va="center", color="white" if dark else "black", size=9
                )


def plain(ax: Axes) -> None:
    """Axes without the box around them, with a light grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)

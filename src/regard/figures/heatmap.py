"""The map of one head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, describe
from regard.figures.canvas import coordinates, families, label, pyplot
from regard.weights import AttentionWeights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELLED = 64
_INCHES_A_TOKEN = 0.14
_BINS = 512
Colours = Literal["linear", "log"]


def plot_weights(
    weights: AttentionWeights,
    batch: int,
    head: int,
    rows: slice,
    cols: slice,
    *,
    row_labels: Sequence[str] | None = None,
    col_labels: Sequence[str] | None = None,
    colours: Colours = "linear",
    cmap: str = "cividis",
    title: str | None = None,
) -> Figure:
    """A window of one head's weights as a map with a colour bar.

    Up to 512 rows or columns are drawn weight by weight. Larger windows are pooled into 512 bins, the largest weight of
    each bin, which keeps diagonals and single needles visible, and the figure says so. What the mask hides is left
    blank. Labels are drawn where there are at most 64.

    Args:
        weights: ``(…, H, Lq, Lk)``.
        batch: which entry of the flattened batch.
        head: which of the recorded heads.
        rows: queries, a slice of step 1.
        cols: keys.
        row_labels: one for every query of the call.
        col_labels: one for every key.
        colours: ``"linear"``, or ``"log"`` from a ten-thousandth of the largest weight on.
        cmap: name of one of matplotlib's colour maps.
        title: above the map.

    Returns:
        The figure, detached from pyplot; ``figure.savefig("map.pdf")`` writes it.

    Raises:
        KindError: rows or columns that are no slice.
        ArgumentError: an entry, a head or a window that is not there, other colours.
        MissingError: matplotlib is not installed.
    """
    pyplot()
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    if colours not in ("linear", "log"):
        raise ArgumentError(f"colours are 'linear' or 'log': got {describe(colours)}.")
    for name, given in (("rows", rows), ("cols", cols)):
        if not isinstance(given, slice):
            raise KindError(f"{name}= is a slice such as slice(0, 40): got {describe(given)}.")
    q_len, k_len = weights.shape[-2:]
    window, across = range(q_len)[rows], range(k_len)[cols]
    if not window or not across or window.step != 1 or across.step != 1:
        raise ArgumentError(f"a map shows rows of 0 … {q_len} and columns of 0 … {k_len}: got {rows} and {cols}.")
    values, pooled = _values(weights, batch, head, window, across)
    labelled = (not pooled, len(window) <= _LABELLED, len(across) <= _LABELLED)
    size = _size(len(window), len(across), labelled=labelled[0])
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    axes = figure.subplots()
    top = max(float(values.nan_to_num(0).max()), torch.finfo(torch.float32).tiny)
    norm = LogNorm(top * 1e-4, top, clip=True) if colours == "log" else Normalize(0, top)
    edges = (across.start - 0.5, across.stop - 0.5, window.stop - 0.5, window.start - 0.5)
    image = axes.imshow(values.numpy(), cmap=cmap, norm=norm, extent=edges, interpolation="nearest", aspect="auto")
    for axis, labels, places, few in (
        (axes.yaxis, row_labels, window, labelled[1]),
        (axes.xaxis, col_labels, across, labelled[2]),
    ):
        if labels is not None and few and labelled[0]:
            axis.set_ticks(list(places), [label(labels[n]) for n in places], fontfamily=families(), fontsize=7)
        else:
            axis.set_tick_params(labelsize=7)
    axes.xaxis.tick_top()
    if col_labels is not None and labelled[0] and labelled[2]:
        axes.tick_params(axis="x", rotation=90)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("key", fontsize=8)
    axes.set_ylabel("query", fontsize=8)
    coordinates(axes)
    if title:
        figure.suptitle(title, fontsize=9, fontfamily=families())
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, pad=0.02)
    bar.set_label("largest weight of a bin" if pooled else "weight", fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2, width=0.5)
    bar.outline.set_linewidth(0.5)
    return figure


def _values(weights: AttentionWeights, batch: int, head: int, window: range, across: range) -> tuple[Tensor, bool]:
    """The window's weights, or the largest of each bin; NaN where nothing is visible; and which of the two."""
    heads = weights.shape[-3] if weights.ndim > 2 else 1
    entries = int(torch.Size(weights.shape[:-3]).numel()) if weights.ndim > 3 else 1
    for name, n, count in (("batch entry", batch, entries), ("head", head, heads)):
        if not isinstance(n, int) or not 0 <= n < count:
            raise ArgumentError(f"{name} is one of 0 … {count - 1}: got {describe(n)}.")
    if len(window) <= _BINS and len(across) <= _BINS:
        return _part(weights, batch, head, window, across).cpu(), False
    strips = []
    step = max((1 << 22) // len(across), 1)
    for start in range(window.start, window.stop, step):
        part = _part(weights, batch, head, range(start, min(start + step, window.stop)), across)
        strips.append(_largest(part.nan_to_num(-1).mT))
    found = _largest(torch.cat(strips, 1).mT)
    return torch.where(found < 0, torch.nan, found).cpu(), True


def _part(weights: AttentionWeights, batch: int, head: int, window: range, across: range) -> Tensor:
    """Weights of a head, NaN where the mask hides a pair."""
    lead = torch.unravel_index(torch.tensor(batch), weights.shape[:-3]) if weights.ndim > 3 else ()
    index = (*(int(n) for n in lead), head) if weights.ndim > 2 else ()
    rows, cols = slice(window.start, window.stop), slice(across.start, across.stop)
    part = weights[(*index, rows, cols)].detach().float()
    call = weights._call
    at = call.frame.tile(rows, cols, slice(batch, batch + 1), slice(head, head + 1))
    allowed = call.mask.allowed(at)
    return torch.where(allowed.expand(1, 1, *part.shape)[0, 0], part, torch.nan)


def _largest(x: Tensor) -> Tensor:
    """The largest of each of at most 512 bins of rows, of ``x (n, m)``."""
    bins = torch.arange(len(x), device=x.device) * min(_BINS, len(x)) // len(x)
    found = x.new_full((int(bins[-1]) + 1, x.shape[1]), -torch.inf)
    return found.scatter_reduce_(0, bins[:, None].expand(x.shape), x, "amax")


def _size(rows: int, cols: int, *, labelled: bool) -> tuple[float, float]:
    """Width and height in inches: a token as wide as its label where there are labels, else a square."""
    if not labelled or max(rows, cols) > _LABELLED:
        longest = max(rows, cols)
        return 1.6 + 4 * max(cols / longest, 0.25), 1.0 + 4 * max(rows / longest, 0.25)
    return 2.2 + _INCHES_A_TOKEN * max(cols, 12), 1.4 + _INCHES_A_TOKEN * max(rows, 12)

"""Pictures of a mask: text, HTML and matplotlib. Queries go down, keys go right.

A large mask is drawn block by block from its `BlockMap`, so that a picture costs what its block structure costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby, islice, product
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from regard._coordinates import Frame
from regard._errors import MissingError, RegardError
from regard.masks.blocks import Coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from regard.masks.base import Mask

_GLYPHS = {Coverage.EMPTY: "·", Coverage.PARTIAL: "▒", Coverage.FULL: "■"}
_COLOURS = {
    Coverage.EMPTY: ("currentColor", 0.08),
    Coverage.PARTIAL: ("#2f7fd6", 0.4),
    Coverage.FULL: ("#2f7fd6", 0.9),
}
_CELLS = 32
"""A text or HTML picture has at most this many cells each way; a larger mask is drawn in blocks."""
_PLOT_CELLS = 256
_PANELS = 4
"""A mask that differs by batch entry or head is drawn for this many of them."""
_DEFAULT_LENGTH = 16
_SVG_WIDTH = 256


class Panel(NamedTuple):
    """The picture of one batch entry and head.

    Attributes:
        title: which one it is, empty where all are the same.
        queries: position at which each row of cells begins.
        keys: position at which each column of cells begins.
        cells: `Coverage` of each cell, uint8 ``(rows, columns)``.
    """

    title: str
    queries: list[int]
    keys: list[int]
    cells: Tensor


class Picture(NamedTuple):
    """A mask cut into cells: one pair each in a small picture, one block of pairs each in a large one.

    Attributes:
        frame: the call that is drawn.
        block: queries and keys a cell.
        panels: the drawings.
        omitted: how many batch entries and heads are not drawn.
    """

    frame: Frame
    block: tuple[int, int]
    panels: list[Panel]
    omitted: int

    @property
    def legend(self) -> str:
        """The size of a cell, empty where it is one pair."""
        return "" if self.block == (1, 1) else f"blocks of {self.block[0]} × {self.block[1]}"


def text(mask: Mask, frame: Frame) -> str:
    """The mask in characters: ``■`` may attend, ``·`` may not, ``▒`` a part of the block may."""
    picture = _picture(mask, frame, _CELLS, _PANELS)
    drawings = ["\n".join(_lines(picture, panel)) for panel in picture.panels]
    if picture.omitted:
        drawings.append(f"… and {picture.omitted} more")
    return "\n\n".join(drawings)


def html(mask: Mask) -> str:
    """The mask as inline SVG with its repr as the caption, in colours that suit light and dark pages."""
    caption = f"<code>{escape(repr(mask))}</code>"
    q_len, k_len = (n or _DEFAULT_LENGTH for n in mask.extent)
    try:
        picture = _picture(mask, mask.frame(q_len, k_len), _CELLS, _PANELS)
    except (RegardError, IndexError, RuntimeError):
        # Its tensors have no one size, or its function reads a table that is shorter: a notebook shows the repr then.
        return caption
    notes = [caption, f"{q_len} queries × {k_len} keys", picture.legend]
    if picture.omitted:
        notes.append(f"… and {picture.omitted} more")
    drawings = "".join(_svg(panel) for panel in picture.panels)
    return (
        '<figure style="margin:0.5em 0;font:12px sans-serif">'
        f'<div style="display:flex;flex-wrap:wrap;gap:1em">{drawings}</div>'
        f"<figcaption>{' · '.join(filter(None, notes))}</figcaption></figure>"
    )


def plot(mask: Mask, frame: Frame, ax: Axes | None = None) -> Axes:
    """The mask of the first batch entry and head on matplotlib axes.

    Raises:
        MissingError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.colors import ListedColormap
    except ImportError:
        raise MissingError("Mask.plot draws with matplotlib, which is missing: pip install regard[plot].") from None
    picture = _picture(mask, frame, _PLOT_CELLS, 1)
    [panel] = picture.panels
    axes = pyplot.subplots(layout="constrained")[1] if ax is None else ax
    colours = ListedColormap(["#eef1f4", "#9cc3ec", "#1f6fc0"])
    if panel.cells.numel():
        axes.imshow(panel.cells.cpu().numpy(), cmap=colours, vmin=0, vmax=2, interpolation="nearest")
        axes.set_aspect("equal" if max(panel.cells.shape) <= 4 * min(panel.cells.shape) else "auto")
    for axis, positions in ((axes.xaxis, panel.keys), (axes.yaxis, panel.queries)):
        shown = range(0, len(positions), max(-(-len(positions) // 6), 1))
        axis.set_ticks(list(shown), [str(positions[n]) for n in shown])
        if len(positions) <= _CELLS:
            axis.set_ticks([n - 0.5 for n in range(1, len(positions))], minor=True)
            axis.grid(which="minor", color="white")
            axis.set_tick_params(which="minor", length=0)
    axes.set_xlabel("key position")
    axes.set_ylabel("query position")
    name = repr(mask)
    notes = [name if len(name) <= 60 else name[:57] + "...", panel.title, picture.legend]
    axes.set_title("\n".join(filter(None, notes)), fontsize="medium")
    return axes


def _picture(mask: Mask, frame: Frame, most: int, panels: int) -> Picture:
    """The mask in at most ``most`` cells each way; both ways in the same blocks, so that a diagonal stays one."""
    mask.check(frame)
    side = 1
    while -(-max(frame.q_len, frame.k_len) // side) > most:
        side *= 2
    block = (side if frame.q_len > most else 1, side if frame.k_len > most else 1)
    grid = mask.block_map(frame, block).grid()
    batch, heads = grid.shape[:2]
    drawn = []
    for b, h in islice(product(range(batch), range(heads)), panels):
        places = (("batch entry", b, batch), ("head", h, heads))
        names = [f"{name} {n} of {size}" for name, n, size in places if size > 1]
        queries, keys = (_entry(x, b)[::n].tolist() for x, n in zip((frame.q_pos, frame.k_pos), block, strict=True))
        drawn.append(Panel(", ".join(names), queries, keys, grid[b, h]))
    return Picture(frame, block, drawn, batch * heads - len(drawn))


def _entry(positions: Tensor, batch: int) -> Tensor:
    return positions[batch if positions.shape[0] > 1 else 0]


def _lines(picture: Picture, panel: Panel) -> Iterator[str]:
    if panel.title:
        yield panel.title
    if picture.legend:
        yield f"{picture.legend}, ▒ where a part may attend"
    keys = [str(k) for k in panel.keys]
    margin = max((len(str(q)) for q in panel.queries), default=0)
    width = max((len(k) for k in keys), default=0)
    heads = [keys]
    if width > 2:
        # Long positions stand upright, one digit a line, so that the cells stay close together.
        heads = [list(digits) for digits in zip(*(k.rjust(width) for k in keys), strict=True)]
        width = 1
    for head in heads:
        yield _line(" " * margin, head, width)
    for query, row in zip(panel.queries, panel.cells.tolist(), strict=True):
        yield _line(str(query).rjust(margin), [_GLYPHS[Coverage(cell)] for cell in row], width)


def _line(label: str, cells: list[str], width: int) -> str:
    return f"{label}   {' '.join(cell.rjust(width) for cell in cells)}".rstrip()


def _svg(panel: Panel) -> str:
    """One rectangle for each run of equal cells of a row."""
    rows, columns = panel.cells.shape
    height = _SVG_WIDTH * max(rows, 1) // max(columns, 1)
    height = min(max(height, 16), 2 * _SVG_WIDTH)
    shapes = []
    for y, row in enumerate(panel.cells.tolist()):
        x = 0
        for kind, run in groupby(row):
            width = len(list(run))
            colour, opacity = _COLOURS[Coverage(kind)]
            box = f'x="{x}" y="{y}" width="{width}" height="1"'
            shapes.append(f'<rect {box} fill="{colour}" fill-opacity="{opacity}"/>')
            x += width
    title = f"<div>{panel.title}</div>" if panel.title else ""
    return (
        f'<div>{title}<svg role="img" aria-label="attention mask, queries down, keys right" width="{_SVG_WIDTH}" '
        f'height="{height}" viewBox="0 0 {max(columns, 1)} {max(rows, 1)}" preserveAspectRatio="none" '
        f'shape-rendering="crispEdges">{"".join(shapes)}</svg></div>'
    )

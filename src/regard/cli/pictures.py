"""Matrices in the terminal: numbers on coloured cells, shaded pictures, bars. They fit the width they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text
from torch import Tensor

_COLD, _WARM, _HOT = (29, 43, 83), (176, 56, 104), (255, 183, 3)
_SHADES, _ASCII_SHADES = " ░▒▓█", " -=%#"
_WIDEST_LABEL = 10


def label(text: str, width: int) -> str:
    """``text`` in exactly ``width`` terminal cells, shortened with ``…`` where it must; wide letters count two."""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    return set_cell_size(text, width)


def _label_width(labels: Sequence[str]) -> int:
    return min(max((cell_len(text) for text in labels), default=0), _WIDEST_LABEL)


def _colour(heat: float) -> tuple[int, int, int]:
    start, end, part = (_COLD, _WARM, 2 * heat) if heat < 0.5 else (_WARM, _HOT, 2 * heat - 1)
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(start, end, strict=True))
    return red, green, blue


def _heat(values: Tensor, allowed: Tensor | None) -> list[list[float]]:
    """The square root of each value's share of the largest one that is visible, so that small shares still differ."""
    visible = (values if allowed is None else values.where(allowed, 0)).clamp(min=0)
    top = float(visible.amax()) if visible.numel() else 0.0
    heat: list[list[float]] = (visible / (top or 1.0)).sqrt().tolist()
    return heat


class Picture(ABC):
    """Lines of text that fit a width; knows how wide they come out, so that nothing pads them."""

    @abstractmethod
    def lines(self, room: int, *, ascii_only: bool) -> Iterator[Text]:
        """The lines, at most ``room`` cells wide; ``ascii_only`` where the output has no shades and blocks."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield from self.lines(options.max_width, ascii_only=options.ascii_only)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = max(line.cell_len for line in self.lines(options.max_width, ascii_only=options.ascii_only))
        return Measurement(min(widest, options.max_width), min(widest, options.max_width))


@dataclass(frozen=True)
class Numbers(Picture):
    """A matrix with every number written out.

    Attributes:
        values: ``(rows, columns)``.
        rows: a label a row.
        columns: a label a column.
        allowed: bool ``(rows, columns)``; a hidden cell shows ``·``.
        heat: whether larger numbers stand on warmer cells.
    """

    values: Tensor
    rows: Sequence[str]
    columns: Sequence[str]
    allowed: Tensor | None = None
    heat: bool = False

    def lines(self, room: int, *, ascii_only: bool) -> Iterator[Text]:
        margin = _label_width(self.rows)
        room -= margin + 2
        shown, names = len(self.columns), min(_label_width(self.columns), 8)
        texts, width = self._written(4)
        if (max(width, names) + 2) * shown <= room:
            width = max(width, names)
        elif (width + 2) * shown > room:
            texts, width = self._written(2)
        if (width + 2) * shown > room:
            shown = max((room - 2) // (width + 2), 1)
        rest = "" if shown == len(self.columns) else " …"
        head = "".join(f" {label(name, width)} " for name in self.columns[:shown])
        yield Text(f"{'':{margin}}  {head}{rest}", style="dim", no_wrap=True)
        heat = _heat(self.values.detach(), self.allowed)
        for i, name in enumerate(self.rows):
            line = Text(f"{label(name, margin)}  ", no_wrap=True)
            for j in range(shown):
                line.append(f" {texts[i][j]:>{width}} ", self._style(i, j, heat[i][j]))
            yield line.append(rest, "dim")

    def _written(self, digits: int) -> tuple[list[list[str]], int]:
        texts = [[f"{value:.{digits}f}" for value in row] for row in self.values.detach().tolist()]
        if self.allowed is not None:
            for i, j in (~self.allowed).nonzero().tolist():
                texts[i][j] = "·"
        return texts, max((len(text) for row in texts for text in row), default=4)

    def _style(self, i: int, j: int, heat: float) -> str:
        if self.allowed is not None and not self.allowed[i, j]:
            return "dim"
        if not self.heat:
            return ""
        red, green, blue = _colour(heat)
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else "white"
        return f"{ink} on rgb({red},{green},{blue})"


@dataclass(frozen=True)
class Cells(Picture):
    """A matrix as shaded, coloured cells: the larger, the fuller and warmer; 0 is blank, a hidden cell shows ``··``.

    Attributes:
        values: ``(rows, columns)``, not negative.
        rows: a label a row.
        allowed: bool ``(rows, columns)``.
    """

    values: Tensor
    rows: Sequence[str]
    allowed: Tensor | None = None

    def lines(self, room: int, *, ascii_only: bool) -> Iterator[Text]:
        margin = _label_width(self.rows)
        shown = self.values.shape[1]
        if margin + 2 + 2 * shown > room:
            shown = max((room - margin - 4) // 2, 1)
        rest = "" if shown == self.values.shape[1] else " …"
        shades, hidden = (_ASCII_SHADES, "..") if ascii_only else (_SHADES, "··")
        heat = _heat(self.values.detach(), self.allowed)
        for i, name in enumerate(self.rows):
            line = Text(f"{label(name, margin)}  ", no_wrap=True)
            for j in range(shown):
                if self.allowed is not None and not self.allowed[i, j]:
                    line.append(hidden, "dim")
                    continue
                red, green, blue = _colour(heat[i][j])
                shade = shades[max(round(heat[i][j] * (len(shades) - 1)), int(heat[i][j] > 0))]
                line.append(2 * shade, f"rgb({red},{green},{blue})")
            yield line.append(rest, "dim")


@dataclass(frozen=True)
class Bars(Picture):
    """One bar a label, with its number.

    Attributes:
        values: not negative.
        labels: one a value.
    """

    values: Tensor
    labels: Sequence[str]

    def lines(self, room: int, *, ascii_only: bool) -> Iterator[Text]:
        margin = _label_width(self.labels)
        longest = max(min(room - margin - 10, 40), 1)
        block = "#" if ascii_only else "█"
        top = float(self.values.amax()) or 1.0
        for value, name in zip(self.values.tolist(), self.labels, strict=True):
            share = value / top
            red, green, blue = _colour(share)
            line = Text(f"{label(name, margin)}  {value:.4f}  ", no_wrap=True)
            yield line.append(block * max(round(share * longest), int(share > 0)), f"rgb({red},{green},{blue})")


@dataclass(frozen=True)
class Table(Picture):
    """Short texts in columns as wide as they need to be; the first column is shortened where the line is too long.

    Attributes:
        head: the columns' names.
        rows: one text a column.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self, room: int, *, ascii_only: bool) -> Iterator[Text]:
        widths = [max(cell_len(row[n]) for row in (self.head, *self.rows)) for n in range(len(self.head))]
        widths[0] = max(min(widths[0], room - sum(widths[1:]) - 2 * len(widths[1:])), 6)
        for n, row in enumerate((self.head, *self.rows)):
            rest = [" " * (width - cell_len(text)) + text for text, width in zip(row[1:], widths[1:], strict=True)]
            line = "  ".join([label(row[0], widths[0]), *rest])
            yield Text(line, style="dim" if n == 0 else "", no_wrap=True, overflow="ellipsis")

"""Matrices in the terminal: numbers on coloured cells, shaded pictures, bars. They fit the width they are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.text import Text
from torch import Tensor

_LOW, _HIGH = (29, 43, 83), (255, 183, 3)
_SHADES = " ░▒▓█"
_WIDEST_LABEL = 10


def label(text: str, width: int) -> str:
    """``text`` in exactly ``width`` terminal cells, shortened with ``…`` where it must; wide letters count two."""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    return set_cell_size(text, width)


def _label_width(labels: Sequence[str]) -> int:
    return min(max((cell_len(text) for text in labels), default=0), _WIDEST_LABEL)


def _colour(share: float) -> tuple[int, int, int]:
    share = min(max(share, 0.0), 1.0)
    red, green, blue = (round(low + share * (high - low)) for low, high in zip(_LOW, _HIGH, strict=True))
    return red, green, blue


def _shares(values: Tensor, allowed: Tensor | None) -> Tensor:
    """Values as shares of the largest magnitude that is visible."""
    visible = values if allowed is None else values.where(allowed, 0)
    top = float(visible.abs().amax()) if values.numel() else 0.0
    return values / (top or 1.0)


@dataclass(frozen=True)
class Numbers:
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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        margin = _label_width(self.rows)
        room = options.max_width - margin - 2
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
        shares = _shares(self.values.detach(), self.allowed)
        for i, name in enumerate(self.rows):
            line = Text(f"{label(name, margin)}  ", no_wrap=True)
            for j in range(shown):
                line.append(f" {texts[i][j]:>{width}} ", self._style(i, j, float(shares[i, j])))
            yield line.append(rest, "dim")

    def _written(self, digits: int) -> tuple[list[list[str]], int]:
        texts = [[f"{value:.{digits}f}" for value in row] for row in self.values.detach().tolist()]
        if self.allowed is not None:
            for i, j in (~self.allowed).nonzero().tolist():
                texts[i][j] = "·"
        return texts, max((len(text) for row in texts for text in row), default=4)

    def _style(self, i: int, j: int, share: float) -> str:
        if self.allowed is not None and not self.allowed[i, j]:
            return "dim"
        if not self.heat:
            return ""
        red, green, blue = _colour(share)
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else "white"
        return f"{ink} on rgb({red},{green},{blue})"


@dataclass(frozen=True)
class Cells:
    """A matrix as shaded, coloured cells: the larger, the fuller and warmer; a hidden cell shows ``··``.

    Attributes:
        values: ``(rows, columns)``, not negative.
        rows: a label a row.
        allowed: bool ``(rows, columns)``.
    """

    values: Tensor
    rows: Sequence[str]
    allowed: Tensor | None = None

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = _label_width(self.rows) + 2 + 2 * self.values.shape[1]
        return Measurement(min(width, options.max_width), min(width, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        margin = _label_width(self.rows)
        shown = self.values.shape[1]
        if margin + 2 + 2 * shown > options.max_width:
            shown = max((options.max_width - margin - 4) // 2, 1)
        rest = "" if shown == self.values.shape[1] else " …"
        shares = _shares(self.values.detach(), self.allowed).tolist()
        for i, name in enumerate(self.rows):
            line = Text(f"{label(name, margin)}  ", no_wrap=True)
            for j in range(shown):
                if self.allowed is not None and not self.allowed[i, j]:
                    line.append("··", "dim")
                    continue
                red, green, blue = _colour(shares[i][j])
                line.append(2 * _SHADES[round(shares[i][j] * (len(_SHADES) - 1))], f"rgb({red},{green},{blue})")
            yield line.append(rest, "dim")


@dataclass(frozen=True)
class Bars:
    """One bar a label, with its number.

    Attributes:
        values: not negative.
        labels: one a value.
    """

    values: Tensor
    labels: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        margin = _label_width(self.labels)
        room = max(min(options.max_width - margin - 10, 40), 1)
        shares = _shares(self.values.detach(), None).tolist()
        for value, share, name in zip(self.values.tolist(), shares, self.labels, strict=True):
            red, green, blue = _colour(share)
            line = Text(f"{label(name, margin)}  {value:.4f}  ", no_wrap=True)
            yield line.append("█" * max(round(share * room), int(share > 0)), f"rgb({red},{green},{blue})")


@dataclass(frozen=True)
class Table:
    """Short texts in columns as wide as they need to be; the first column is shortened where the line is too long.

    Attributes:
        head: the columns' names.
        rows: one text a column.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        widths = [max(cell_len(row[n]) for row in (self.head, *self.rows)) for n in range(len(self.head))]
        widths[0] = max(min(widths[0], options.max_width - sum(widths[1:]) - 2 * len(widths[1:])), 6)
        for n, row in enumerate((self.head, *self.rows)):
            rest = [" " * (width - cell_len(text)) + text for text, width in zip(row[1:], widths[1:], strict=True)]
            yield Text(
                "  ".join([label(row[0], widths[0]), *rest]),
                style="dim" if n == 0 else "",
                no_wrap=True,
                overflow="ellipsis",
            )

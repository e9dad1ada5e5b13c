"""Head scores as a table: one row a layer and head, one column a score."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from regard._errors import ArgumentError, MissingError

_SHOWN = 20


@dataclass(frozen=True)
class Head:
    """One head: number and name of its layer, its own number."""

    layer: int
    name: str
    head: int


@dataclass(frozen=True, eq=False, repr=False)
class HeadScores:
    """Scores of heads, averaged over prompts.

    Attributes:
        heads: which head each row is of.
        mean: name of a score to its mean over prompts, for each head; NaN where there is none.
        error: likewise its standard error, ``s / √n``; NaN for fewer than two prompts.
        prompts: how many prompts there were.
        missing: name of a score that no layer has to the reason.

    >>> layer = rg.nn.MultiHeadAttention(8, 8, 32, 0.0, num_heads=2)
    >>> with rg.record(layer) as rec:
    ...     out = layer(torch.randn(3, 10, 8))
    >>> rec.head_scores(["entropy", "previous_token"]).sort("previous_token").names
    ('entropy', 'previous_token')
    """

    heads: tuple[Head, ...]
    mean: Mapping[str, tuple[float, ...]]
    error: Mapping[str, tuple[float, ...]]
    prompts: int
    missing: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The scores, in order."""
        return tuple(self.mean)

    def __len__(self) -> int:
        return len(self.heads)

    def sort(self, by: str, *, descending: bool = True) -> HeadScores:
        """The same rows in the order of a score, those without one last.

        Raises:
            ArgumentError: there is no such score.
        """
        values = self._column(by)
        sign = -1 if descending else 1
        order = sorted(range(len(self)), key=lambda n: (math.isnan(values[n]), sign * values[n]))
        mean, error = (
            {name: tuple(column[n] for n in order) for name, column in table.items()}
            for table in (self.mean, self.error)
        )
        return HeadScores(tuple(self.heads[n] for n in order), mean, error, self.prompts, self.missing)

    def grids(self) -> dict[str, list[list[float]]]:
        """Each score as a row of numbers for each layer, layers and heads in the order of this table."""
        places: dict[tuple[int, str], list[int]] = {}
        for n, head in enumerate(self.heads):
            places.setdefault((head.layer, head.name), []).append(n)
        return {name: [[column[n] for n in row] for row in places.values()] for name, column in self.mean.items()}

    def rows(self) -> Iterator[dict[str, object]]:
        """Each row as a dict: ``layer``, ``name``, ``head``, every score, and its error under its name and ``_se``."""
        for n, head in enumerate(self.heads):
            scores = {
                key: value
                for name in self.names
                for key, value in ((name, self.mean[name][n]), (f"{name}_se", self.error[name][n]))
            }
            yield {"layer": head.layer, "name": head.name, "head": head.head, **scores}

    def to_csv(self, path: str | Path | None = None) -> str:
        """The table as comma-separated values, written to ``path`` if there is one; NaN is an empty field."""
        text = io.StringIO()
        fields = ["layer", "name", "head", *(key for name in self.names for key in (name, f"{name}_se"))]
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        for row in self.rows():
            writer.writerow({key: "" if isinstance(x, float) and math.isnan(x) else x for key, x in row.items()})
        if path is not None:
            Path(path).write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def to_pandas(self) -> Any:
        """The table as a pandas ``DataFrame``.

        Raises:
            MissingError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingError("to_pandas needs pandas: pip install pandas. Without it there is .to_csv().") from error
        return pandas.DataFrame(list(self.rows()))

    def __repr__(self) -> str:
        lines = [["layer", "head", *self.names]]
        for n, head in enumerate(self.heads[:_SHOWN]):
            values = [_shown(self.mean[name][n], self.error[name][n]) for name in self.names]
            lines.append([str(head.layer), str(head.head), *values])
        rest = len(self) - _SHOWN
        more = f"\n… and {rest} more; .sort(score), .to_csv(), .to_pandas()" if rest > 0 else ""
        plural = "" if self.prompts == 1 else "s"
        return f"{_folded(lines)}{more}\n{len(self)} heads, mean over {self.prompts} prompt{plural}"

    def _column(self, name: str) -> Sequence[float]:
        if name not in self.mean:
            raise ArgumentError(f"this table has the scores {', '.join(self.names)}: got {name!r}.")
        return self.mean[name]


def _shown(mean: float, error: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.3g}" if math.isnan(error) else f"{mean:.3g} ± {error:.1g}"


def _folded(lines: list[list[str]]) -> str:
    """A table as wide as the terminal; the columns that are left follow below, behind the layer and the head again."""
    widths = [2 + max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    room = get_terminal_size().columns - sum(widths[:2])
    folds: list[list[int]] = []
    for n, width in enumerate(widths[2:], 2):
        if not folds or sum(widths[m] for m in folds[-1]) + width > room:
            folds.append([])
        folds[-1].append(n)
    return "\n\n".join(
        "\n".join("".join(line[n].rjust(widths[n]) for n in (0, 1, *fold)) for line in lines) for fold in folds
    )

"""Where commands print: colours on a terminal, plain text in a pipe, no line too long to read."""

from __future__ import annotations

import io
import sys

from rich.console import Console

_WIDEST = 100


def make_console() -> Console:
    """A console on the present standard output; heeds NO_COLOR and COLUMNS.

    Letters that the output's encoding lacks become question marks instead of errors.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, emoji=False)
    console.width = min(console.width, _WIDEST)
    return console

"""The command ``regard tour``: which sections there are, and how to walk through them."""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from regard._errors import ArgumentError
from regard.cli.console import make_console
from regard.cli.tour import causality, heads, similarity, trainable
from regard.cli.tour.lesson import Lesson, Section, lesson_of

SECTIONS = (
    Section("Tokens are vectors", similarity.vectors),
    Section("Dot products: how alike are two tokens?", similarity.dot_products),
    Section("Softmax: from scores to weights", similarity.softmax),
    Section("The weighted sum: a context vector", similarity.weighted_sum),
    Section("All tokens at once: self-attention", similarity.all_at_once),
    Section("Queries, keys and values: weights that learn", trainable.queries_keys_values),
    Section("Scaling: why divide by √d", trainable.scaling),
    Section("nn.Linear: y = x Wᵀ + b", trainable.linear_layers),
    Section("The causal mask: no looking ahead", causality.causal_mask),
    Section("A leak: softmax before the mask", causality.leak),
    Section("Dropout: forgetting on purpose", causality.dropout),
    Section("Several heads", heads.several_heads),
    Section("The same numbers from the fast path", heads.fast_path),
    Section("What to try next", heads.next_steps),
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    listed = "\n".join(f"  {n:>2}  {section.title}" for n, section in enumerate(SECTIONS, 1))
    parser = subparsers.add_parser(
        "tour",
        help="attention from scratch on six tokens, every number shown",
        description="Walk from dot products to multi-head attention on six tokens, with every number on the way.",
        epilog=f"sections:\n{listed}\n\nexamples:\n  regard tour --pause\n  regard tour --section 9\n"
        '  regard tour --text "any words you like"\n',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", help="your own words instead of the six tokens of the book")
    parser.add_argument("--section", type=int, metavar="N", help=f"show only section N, 1 to {len(SECTIONS)}")
    parser.add_argument("--pause", action="store_true", help="wait for Enter after each section")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show one section or all of them."""
    last = len(SECTIONS)
    wanted = range(1, last + 1) if arguments.section is None else (arguments.section,)
    if not 1 <= wanted[0] <= last:
        raise ArgumentError(f"the tour has sections 1 to {last}: got --section {arguments.section}.")
    lesson, console = lesson_of(arguments.text), make_console()
    for n in wanted:
        _show(console, lesson, n)
        if arguments.pause and n != wanted[-1] and not _goes_on(console):
            break
    return 0


@torch.no_grad()
def _show(console: Console, lesson: Lesson, n: int) -> None:
    title = Text(f"{n}. {SECTIONS[n - 1].title} ", style="bold")
    console.print()
    console.print(title.append("─" * max(console.width - title.cell_len, 0), "dim"), no_wrap=True, crop=True)
    console.print()
    blank = True
    for part in SECTIONS[n - 1].show(lesson):
        # A figure brings its own air; two paragraphs in a row get a line between them.
        airy = isinstance(part, Padding) and bool(part.top)
        if isinstance(part, Text) and not blank:
            console.print()
        console.print(part)
        blank = airy


def _goes_on(console: Console) -> bool:
    """Wait for Enter; q or the end of the input ends the tour."""
    try:
        answer = console.input(Text("\nEnter goes on, q ends: ", style="dim"))
    except EOFError:
        return True
    return answer.strip().lower() not in ("q", "quit")

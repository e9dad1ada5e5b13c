"""``regard recall``: why attention, measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from regard._errors import MissingError
from regard.cli.console import make_console
from regard.cli.pictures import Table


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "recall",
        help="why attention: recall against distance, beside a GRU and an LSTM",
        description="Train a GRU, an LSTM and one attention layer with equally many parameters to recall the value of "
        "a key, and measure how often they do at distances from 4 to 512. Each item is one token with key and value.",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="training steps of each model (default: 3000)")
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        metavar="X",
        help="each model takes its best (default: 0.005 0.01 0.02)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and sequences (default: %(default)s)")
    parser.add_argument(
        "--distances",
        type=int,
        nargs="+",
        metavar="N",
        help="trained on and asked at (default: 4 8 16 32 64 128 256 512, trained on from 8)",
    )
    parser.add_argument("--out", type=Path, default=Path("regard-recall"), help="folder (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the experiment, print the table, save picture and JSON."""
    from regard.recall import KINDS, Experiment, total_steps
    from regard.recall import run as measure
    from regard.recall.picture import draw

    changes: dict[str, Any] = {"seed": arguments.seed}
    if arguments.steps is not None:
        changes["steps"] = arguments.steps
    if arguments.learning_rates:
        changes["learning_rates"] = tuple(arguments.learning_rates)
    if arguments.distances:
        changes["distances"] = changes["lengths"] = tuple(arguments.distances)
    experiment = Experiment(**changes)
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = make_console()
    columns = TextColumn("{task.description:<10}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {kind: bar.add_task(kind, total=total_steps(experiment)) for kind in KINDS}
        result = measure(experiment, tell=lambda kind, step: bar.update(tasks[kind], completed=step))
    head = ("distance", *(f"{kind} ({result.parameters[kind]:,})" for kind in result.accuracy))
    rows = [
        (str(distance), *(f"{shares[n]:.1%}" for shares in result.accuracy.values()))
        for n, distance in enumerate(experiment.distances)
    ]
    console.print(Text("right answers at each distance (in brackets: parameters of the layer)", style="bold"))
    console.print(Table(head, rows))
    for sentence in result.statements():
        console.print(Text(sentence))
    (arguments.out / "recall.json").write_text(json.dumps(result.record(), indent=1) + "\n", encoding="utf-8")
    saved = "recall.json"
    try:
        draw(result, arguments.out / "recall.png")
        saved += " and recall.png"
    except MissingError as error:
        console.print(Text(str(error)))
    console.print(Text(f"saved {saved} in {arguments.out}"), soft_wrap=True)
    return 0

"""`regard bench`: run the cases, print a table, save the record."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from regard._errors import ArgumentError

if TYPE_CHECKING:
    from rich.table import Table

    from regard.bench.run import Measured, MemoryUse

MEMORY = "memory"
WHOLE = "models"
"""The cases that load whole models: run only when they are asked for."""
_MEMORY_TARGET = 3.0


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bench",
        help="measure speed and memory as ratios, on this machine",
        description="Time each case against another way of the same computation, alternately in one process, after "
        "checking that both agree. A ratio below 1 means that regard is faster.",
    )
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="cases to run; 'models' are those of whole models (default: all but these; --list names them)",
    )
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each way (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", help="device of the timings (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=65536, help="length of the memory case (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also save every run here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 0 when everything was measured, whatever the figures."""
    import torch
    from rich.console import Console

    from regard.bench import cases
    from regard.bench.machine import Machine
    from regard.bench.models import MODELS
    from regard.bench.modules import MODULES
    from regard.bench.run import measure, measure_memory

    every = (*cases.CASES, *MODULES, *MODELS)
    console = Console()
    if arguments.list:
        for case in every:
            console.print(f"[bold]{case.name}[/]  {case.title}; against {case.against}", highlight=False)
        console.print(f"[bold]{MEMORY}[/]  peak memory of a causal forward and backward pass", highlight=False)
        return 0
    # Memory first: what timed cases leave with the allocator would hide it.
    wanted = arguments.cases or [MEMORY, *(case.name for case in every if case not in MODELS)]
    if WHOLE in wanted:
        wanted = [name for name in wanted if name != WHOLE] + [case.name for case in MODELS]
    unknown = sorted(set(wanted) - {case.name for case in every} - {MEMORY})
    if unknown:
        raise ArgumentError(f"no case is named {', '.join(unknown)}. `regard bench --list` names them.")
    for case in every:
        if case.name in wanted and case.missing:
            console.print(f"[yellow]{case.name} is left out:[/] {case.missing}", highlight=False)
            wanted = [name for name in wanted if name != case.name]
    if arguments.runs < 1 or arguments.tokens < 1:
        raise ArgumentError(f"--runs and --tokens must be at least 1: got {arguments.runs} and {arguments.tokens}.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    machine = Machine.here()
    console.print(str(machine), highlight=False)
    measured: list[Measured] = []
    used: MemoryUse | None = None
    for name in wanted:
        with console.status(f"measuring {name} …"):
            if name == MEMORY:
                used = measure_memory(arguments.tokens)
            else:
                case = next(c for c in every if c.name == name)
                measured.append(measure(case, torch.device(arguments.device), arguments.runs))
    if measured:
        console.print(_table(measured))
    if used is not None:
        console.print(
            f"memory: causal forward + backward at {used.tokens:,} tokens holds {used.extra / 1e6:.0f} MB beyond "
            f"inputs, output and gradients ({used.operands / 1e6:.0f} MB): {used.ratio:.2f} of them, "
            f"target {_MEMORY_TARGET:.0f}",
            highlight=False,
        )
    if arguments.json:
        record: dict[str, object] = {"machine": machine.record(), "cases": [m.record() for m in measured]}
        record["memory"] = None if used is None else used.record()
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
        console.print(f"saved {arguments.json}")
    return 0


def _table(measured: list[Measured]) -> Table:
    from rich.table import Table

    table = Table("case", "(B, H, L, D)", "against")
    for heading in ("ours", "theirs", "ratio", "target"):
        table.add_column(heading, justify="right")
    for one in measured:
        mine, other = one.pair.medians
        mark = "[green]✓[/]" if one.met else "[red]✗[/]"
        figures = (f"{mine * 1e3:.1f} ms", f"{other * 1e3:.1f} ms", f"{one.pair.ratio:.3f}")
        shape = str(one.case.shape)
        table.add_row(one.case.title, shape, one.case.against, *figures, f"{one.case.target:.2f} {mark}")
    return table

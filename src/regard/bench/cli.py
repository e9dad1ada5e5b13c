"""`regard bench`: run the cases, print a table, save the record."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard._errors import ArgumentError

if TYPE_CHECKING:
    from rich.table import Table

    from regard.bench.growth import Growth
    from regard.bench.memory import MemoryUse
    from regard.bench.run import Measured

MEMORY, WEIGHTS_MEMORY, GROWTH = "memory", "weights-memory", "growth"
_RIVALS = ("torch", "flex", "eager", "own")


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
        help="cases to run; 'models' are those of whole models, 'training' whole training steps (default: all but "
        "these, and what stands alone; --list names them)",
    )
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--quick", action="store_true", help="a few short cases only, in about a minute")
    parser.add_argument(
        "--against",
        default=",".join(_RIVALS),
        help="the other ways to compare with, 'own' being other calls of regard (default: %(default)s)",
    )
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each way (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=6, help="a case begins no new run after so long (default: %(default)g)"
    )
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own choice)")
    parser.add_argument("--device", default="cpu", help="device of the timings (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=65536, help="length of the memory case (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also save every run here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the table here, needs matplotlib")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 0 when everything was measured, whatever the figures."""
    import torch
    from rich.console import Console

    from regard.bench import cases, recording, viewer
    from regard.bench.features import FEATURES
    from regard.bench.flex import FLEX
    from regard.bench.forced import measure_forced
    from regard.bench.gathering import GATHERING
    from regard.bench.growth import measure_growth
    from regard.bench.kernels import KERNELS
    from regard.bench.limits import Limits
    from regard.bench.machine import Machine
    from regard.bench.memory import measure_memory, measure_weights_memory
    from regard.bench.models import MODELS
    from regard.bench.modules import MODULES
    from regard.bench.run import measure
    from regard.bench.training import TRAINING

    whole = {"models": MODELS, "training": TRAINING}  # minutes each: run only when they are asked for
    every = (*KERNELS, *FEATURES, *GATHERING, *FLEX, *cases.CASES, *MODULES, *MODELS, *TRAINING)
    alone: dict[str, Any] = {"recording": recording, "viewer": viewer}  # neither a pair of ways nor quick
    console = Console()
    if arguments.list:
        for case in every:
            console.print(f"[bold]{case.name}[/]  {case.title}; against {case.against}", highlight=False)
        console.print(f"[bold]{MEMORY}[/]  peak memory of a causal forward and backward pass", highlight=False)
        console.print(f"[bold]{WEIGHTS_MEMORY}[/]  peak memory of attention and what is asked of its weights")
        for name, module in alone.items():
            console.print(f"[bold]{name}[/]  {module.TITLE}", highlight=False)
        console.print(f"[bold]{GROWTH}[/]  time against visible pairs, from 1,024 to 65,536 tokens", highlight=False)
        return 0
    rivals = _checked_rivals(arguments.against)
    # Memory first: what timed cases leave with the allocator would hide it.
    minutes = [case.name for several in whole.values() for case in several]
    usual = [case for case in every if case.name not in minutes and case.rival in rivals]
    chosen = [case.name for case in usual if case.quick or not arguments.quick]
    wanted = arguments.cases or [*([] if arguments.quick else [WEIGHTS_MEMORY, MEMORY]), *chosen, GROWTH]
    wanted = [name for asked in wanted for name in ([c.name for c in whole[asked]] if asked in whole else [asked])]
    unknown = sorted(set(wanted) - {case.name for case in every} - {MEMORY, WEIGHTS_MEMORY, GROWTH, *alone})
    if unknown:
        raise ArgumentError(f"no case is named {', '.join(unknown)}. `regard bench --list` names them.")
    reasons = {case.name: case.missing for case in every} | {name: m.missing() for name, m in alone.items()}
    for name in [name for name in wanted if reasons.get(name)]:
        console.print(f"[yellow]{name} is left out:[/] {reasons[name]}", highlight=False)
        wanted.remove(name)
    if arguments.runs < 1 or arguments.tokens < 1:
        raise ArgumentError(f"--runs and --tokens must be at least 1: got {arguments.runs} and {arguments.tokens}.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    machine = Machine.here()
    limits = Limits.here()
    console.print(str(machine), highlight=False)
    if limits is not None:
        console.print(str(limits), highlight=False)
    measured: list[Measured] = []
    used: list[MemoryUse] = []
    growth: Growth | None = None
    by_themselves: dict[str, recording.Recording | viewer.Viewed] = {}

    def save() -> None:
        if arguments.json is None:
            return
        record: dict[str, object] = {"machine": machine.record(), "cases": [m.record() for m in measured]}
        record["limits"] = None if limits is None else limits.record()
        record["memory"] = [use.record() for use in used]
        record["growth"] = None if growth is None else growth.record()
        record.update({name: figures.record() for name, figures in by_themselves.items()})
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")

    for name in wanted:
        with console.status(f"measuring {name} …"):
            if name == MEMORY:
                used.append(measure_memory(arguments.tokens))
            elif name == WEIGHTS_MEMORY:
                used.append(measure_weights_memory(arguments.tokens // 2))
            elif name == GROWTH:
                growth = measure_growth(arguments.runs)
            elif name in alone:
                by_themselves[name] = alone[name].measure(arguments.runs)
            else:
                case = next(c for c in every if c.name == name)
                how = measure if case.variant in (None, machine.kernels) else measure_forced
                device = torch.device(arguments.device)
                measured.append(how(case, device, arguments.runs, limits, arguments.seconds))
                console.print(f"{name}: {measured[-1].ratio:.3f}", highlight=False)
        save()  # after each, so that an interrupted run leaves what it has
    if measured:
        console.print(_table(measured))
    for one in measured:
        if one.rates is not None:
            console.print(f"{one.case.name}: {one.rates[0]:,.0f} against {one.rates[1]:,.0f} tokens/s", highlight=False)
    for use in used:
        console.print(str(use), highlight=False)
    if growth is not None:
        console.print(str(growth), highlight=False)
    for figures in by_themselves.values():
        console.print(str(figures), highlight=False)
    if arguments.plot:
        from regard.bench.picture import draw

        draw(measured, growth, arguments.plot, str(machine))
        console.print(f"saved {arguments.plot}")
    if arguments.json:
        console.print(f"saved {arguments.json}")
    return 0


def _checked_rivals(names: str) -> set[str]:
    rivals = {name.strip() for name in names.split(",")}
    unknown = sorted(rivals - set(_RIVALS))
    if unknown:
        raise ArgumentError(f"--against takes some of {','.join(_RIVALS)}: got {', '.join(unknown)}.")
    return rivals


def _table(measured: list[Measured]) -> Table:
    from rich.table import Table

    table = Table("case", "(B, H, L, D)", "against")
    for heading in ("ours", "theirs", "ratio", "target", "of peak"):
        table.add_column(heading, justify="right")
    for one in measured:
        mine, other = one.pair.medians
        mark = "[green]✓[/]" if one.met else "[red]✗[/]"
        figures = (_time(mine), _time(other), f"{one.ratio:.3f}")
        share = "" if one.share is None else f"{100 * one.share:.0f} %"
        target = f"{one.case.target:.2f}" if one.case.slack is None else f"+{_time(one.case.slack)}"
        shape = str(one.case.shape)
        table.add_row(one.case.name, shape, one.case.against, *figures, f"{target} {mark}", share)
    return table


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"

"""``regard info``: what is installed, and which backend works here or why not."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator

import numpy
import torch
from rich.console import Console
from rich.text import Text

import regard
from regard._dispatch import backend, backend_names
from regard._errors import ArgumentError
from regard.backends.base import Capabilities
from regard.cli.console import make_console


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "info",
        help="versions, devices, and which backend works here or why not",
        description="Versions, devices, and every backend: what it can do, and whether it works on this machine.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print everything."""
    console = make_console()
    for name, value in _machine():
        console.print(Text.assemble((f"{name:<10}", "bold"), value), soft_wrap=True)
    console.print()
    console.print(Text("backends, in the order in which they are asked", style="bold"))
    for name in backend_names():
        _print_backend(console, name)
    return 0


def _machine() -> Iterator[tuple[str, str]]:
    yield "regard", regard.__version__
    yield "torch", torch.__version__
    yield "numpy", numpy.__version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors; torch.set_num_threads changes it"
    yield "cpu", torch.backends.cpu.get_cpu_capability()
    yield "cuda", ", ".join(_cuda_devices()) or "no device"


def _cuda_devices() -> list[str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(count)]


def _print_backend(console: Console, name: str) -> None:
    found = backend(name)
    absent, build = found.missing(), None
    if absent is None:
        try:
            build = found.build()
        except ArgumentError as refused:
            absent = f"stops at every call: {refused}"
    mark = Text("  ✓ ", "green") if absent is None else Text("  ✗ ", "red")
    console.print(Text.assemble(mark, (f"{name:<11}", "bold"), found.summary), soft_wrap=True)
    works = "works here" if build is None else f"works here: {build}"
    state = works if absent is None else f"does not work here: it {absent}"
    for line in (state, *_limits(found.capabilities)):
        console.print(Text(f"{'':15}{line}", style="dim"), soft_wrap=True)


def _limits(can: Capabilities) -> Iterator[str]:
    yield f"devices: {', '.join(can.devices) or 'all'}; dtypes: {', '.join(str(d)[6:] for d in can.dtypes)}"
    offered = {
        "masks": can.masks,
        "score changes": can.score_mods,
        "sinks": can.sinks,
        "dropout": can.dropout,
        "lse": can.lse,
        "gradient of lse": can.lse and can.lse_gradient,
        "higher derivatives": can.higher_derivatives,
    }
    yield f"has {', '.join(name for name, has in offered.items() if has) or 'plain attention only'}"
    lacking = [name for name, has in offered.items() if not has]
    if lacking:
        yield f"lacks {', '.join(lacking)}"

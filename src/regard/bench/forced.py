"""A case of one variant of the kernels, on a processor that has a faster one: measured by a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from regard.backends.native import library
from regard.bench.cases import Case
from regard.bench.limits import Limits
from regard.bench.run import Measured
from regard.bench.timing import Pair


def measure_forced(
    case: Case, device: torch.device, runs: int, limits: Limits | None = None, seconds: float = 10
) -> Measured:
    """As `measure`, in a process in which `library.CHOICE` forces the variant of the case.

    Raises:
        CalledProcessError: the process did not end well; what it printed is shown.
    """
    assert case.variant is not None
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        numbers = ("--runs", runs, "--seconds", seconds, "--threads", torch.get_num_threads())
        command = (sys.executable, "-m", "regard", "bench", case.name, "--device", device, *numbers, "--json", record)
        environment = os.environ | {library.CHOICE: case.variant}
        subprocess.run(list(map(str, command)), check=True, env=environment, stdout=subprocess.DEVNULL)
        ours, theirs = json.loads(record.read_text())["cases"][0]["runs"]
    return Measured(case, Pair(tuple(ours), tuple(theirs)), limits)

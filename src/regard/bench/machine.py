"""The machine that a measurement was taken on: part of every record."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from regard.backends.native import library


@dataclass(frozen=True)
class Machine:
    """What a timing depends on besides the code."""

    processor: str
    cores: int
    capability: str
    torch: str
    threads: int
    omp_num_threads: str | None
    regard: str
    python: str
    kernels: str | None
    lacks: tuple[str, ...]

    @staticmethod
    def here() -> Machine:
        """This machine, with the thread count that torch has now."""
        return Machine(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            capability=torch.backends.cpu.get_cpu_capability(),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
            regard=version("regard"),
            python=platform.python_version(),
            kernels=None if library.missing() else library.variant(),
            lacks=tuple(v for v in library.VARIANTS if v not in library.supported()),
        )

    def __str__(self) -> str:
        lacking = f", without {', '.join(self.lacks)}" if self.lacks else ""
        return (
            f"{self.processor}, {self.cores} cores, {self.capability}; torch {self.torch}, {self.threads} threads; "
            f"kernels: {self.kernels or 'none'}{lacking}"
        )

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

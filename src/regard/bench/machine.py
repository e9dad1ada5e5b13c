"""The machine that a measurement was taken on: part of every record."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """What a timing depends on besides the code."""

    processor: str
    cores: int
    capability: str
    torch: str
    threads: int
    omp_num_threads: str | None

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
        )

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} cores, {self.capability}; torch {self.torch}, {self.threads} threads"

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

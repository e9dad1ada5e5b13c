"""What the machine can do at most: multiply-adds in registers and reading memory, measured when a benchmark runs."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch

_ROUNDS = 1 << 21
_BYTES = 1 << 28


@dataclass(frozen=True)
class Limits:
    """The best of several runs on all threads.

    Attributes:
        flops: float32 operations a second; a multiply-add is two.
        read_bytes: bytes read from memory a second.
    """

    flops: float
    read_bytes: float

    @staticmethod
    def here(runs: int = 8) -> Limits | None:
        """This machine's, on as many threads as torch has; None where the small library that measures was not built."""
        library = _library()
        if library is None:
            return None
        threads = torch.get_num_threads()
        data = torch.ones(_BYTES // 8, dtype=torch.int64)
        part = _BYTES // threads // 256 * 256

        def multiply_add(_: int) -> float:
            factor = ctypes.c_float(0.999)
            return float(library.regard_multiply_adds(_ROUNDS, ctypes.addressof(factor)))

        def read(thread: int) -> float:
            library.regard_read(data.data_ptr() + thread * part, part)
            return float(part)

        with ThreadPoolExecutor(threads) as pool:
            return Limits(_rate(pool, multiply_add, threads, runs), _rate(pool, read, threads, runs))

    def __str__(self) -> str:
        return f"at most {self.flops / 1e9:.0f} GFLOP/s in float32, {self.read_bytes / 1e9:.1f} GB/s read"

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self)


def _rate(pool: ThreadPoolExecutor, work: Callable[[int], float], threads: int, runs: int) -> float:
    best = 0.0
    for _ in range(runs):
        began = time.perf_counter()
        done = sum(pool.map(work, range(threads)))
        best = max(best, done / (time.perf_counter() - began))
    return best


def _library() -> ctypes.CDLL | None:
    folders = [Path(folder) for folder in import_module("regard.backends.native").__path__]
    found = next((f for f in (folder / "lib" / "libregard_limits.so" for folder in folders) if f.exists()), None)
    if found is None:
        return None
    library = ctypes.CDLL(str(found))
    library.regard_multiply_adds.argtypes = (ctypes.c_int64, ctypes.c_void_p)
    library.regard_multiply_adds.restype = ctypes.c_double
    library.regard_read.argtypes, library.regard_read.restype = (ctypes.c_void_p, ctypes.c_int64), ctypes.c_int64
    return library

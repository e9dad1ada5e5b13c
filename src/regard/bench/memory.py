"""The greatest memory that a computation holds beyond what was there before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from regard._errors import ArgumentError

_STATUS = Path("/proc/self/status")
_EVERY = 0.002


def peak_extra(function: Callable[[], object]) -> int:
    """Bytes of resident memory that ``function`` needed at its peak above what was resident before it.

    Raises:
        ArgumentError: this system does not tell a process its resident memory.
    """
    if not _STATUS.exists():
        raise ArgumentError("memory is measured from /proc/self/status, which only Linux has: got another system.")
    before = peak = _resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _resident())
            time.sleep(_EVERY)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        kept = function()
        peak = max(peak, _resident())
        del kept
    finally:
        done.set()
        watcher.join()
    return peak - before


def _resident() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0

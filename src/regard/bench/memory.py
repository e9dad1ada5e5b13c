"""The greatest memory that a computation holds beyond what was there before, and of which computations it is told."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from regard._attention import attention
from regard._dispatch import backend
from regard._errors import ArgumentError
from regard._inspect import inspect
from regard.bench.gathering import ask
from regard.masks import Causal

_STATUS = Path("/proc/self/status")
_EVERY = 0.002


@dataclass(frozen=True)
class MemoryUse:
    """Extra memory of a causal computation, beside the size of what goes in and comes out.

    Attributes:
        title: what is computed.
        tokens: its length.
        extra: bytes held at the peak beyond what goes in and comes out.
        operands: bytes of what goes in and comes out.
        target: the greatest ratio of the two that the project promises.
    """

    title: str
    tokens: int
    extra: int
    operands: int
    target: float

    @property
    def ratio(self) -> float:
        """Extra bytes per byte of what goes in and comes out."""
        return self.extra / self.operands

    def __str__(self) -> str:
        return (
            f"memory: {self.title} at {self.tokens:,} tokens holds {self.extra / 1e6:.0f} MB beyond what goes in and "
            f"comes out ({self.operands / 1e6:.0f} MB): {self.ratio:.2f} of it, target {self.target:g}"
        )

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self) | {"ratio": self.ratio}


def measure_memory(tokens: int, features: int = 64) -> MemoryUse:
    """One causal head, forward and backward, by the native kernels where they are built, else by blockwise."""
    name = "blockwise" if backend("native").missing() else "native"
    with _seeded():
        q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 1, tokens, features).unbind())
        g = torch.randn(1, 1, tokens, features)
    small = (x[:, :, :256] for x in (q, k, v))
    torch.autograd.grad(attention(*small, mask=Causal(), backend=name).sum(), (q, k, v))

    def passes() -> tuple[Tensor, ...]:
        out = attention(q, k, v, mask=Causal(), backend=name)
        return (out, *torch.autograd.grad(out, (q, k, v), g))

    kept = 4 * tokens * features * q.element_size()
    title = f"{name}, causal forward + backward"
    return MemoryUse(title, tokens, peak_extra(passes) - kept, 2 * kept, 1.0 if name == "native" else 3.0)


def measure_weights_memory(tokens: int, features: int = 64) -> MemoryUse:
    """All streamed statistics of the lazy weights of one causal head, the call itself included."""
    with _seeded():
        q, k, v = torch.randn(3, 1, 1, tokens, features).unbind()
    ask(inspect(q[:, :, :256], k[:, :, :256], v[:, :, :256], mask=Causal()).weights, more=True)

    def passes() -> list[Tensor]:
        seen = inspect(q, k, v, mask=Causal())
        return [seen.out, seen.lse, ask(seen.weights, more=True)]

    kept = tokens * (features + 2) * q.element_size()
    given = 3 * tokens * features * q.element_size()
    return MemoryUse("attention and statistics of its weights", tokens, peak_extra(passes) - kept, kept + given, 1.0)


def peak_extra(function: Callable[[], object]) -> int:
    """Bytes of resident memory that ``function`` needed at its peak above what was resident before it.

    Raises:
        ArgumentError: this system does not tell a process its resident memory.
    """
    if not _STATUS.exists():
        raise ArgumentError("memory is measured from /proc/self/status, which only Linux has: got another system.")
    before = peak = settled()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident())
            time.sleep(_EVERY)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        kept = function()
        peak = max(peak, resident())
        del kept
    finally:
        done.set()
        watcher.join()
    return peak - before


def resident() -> int:
    """Bytes of this process in memory."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def settled() -> int:
    """`resident`, once the allocator has given back what is free: holes between blocks are not what a result holds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
    return resident()


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield

"""How time grows with the visible work: a line through times and visible pairs, from 1,024 to 65,536 tokens."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass

import torch

from regard._attention import attention
from regard.masks import SlidingWindow

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
_WINDOW = SlidingWindow.of_width(1024)


@dataclass(frozen=True)
class Growth:
    """The line ``seconds = fixed + per_pair * pairs``, fitted where relative errors count alike.

    Attributes:
        tokens: the lengths.
        pairs: visible pairs of each, all heads.
        seconds: median of each.
        fixed: seconds without a pair.
        per_pair: seconds a pair.
        worst: the greatest relative distance of a time from the line.
    """

    tokens: tuple[int, ...]
    pairs: tuple[int, ...]
    seconds: tuple[float, ...]
    fixed: float
    per_pair: float
    worst: float

    def __str__(self) -> str:
        return (
            f"time against visible pairs, window of 1,024 keys, {self.tokens[0]:,} to {self.tokens[-1]:,} tokens: "
            f"{self.fixed * 1e3:.3f} ms + {self.per_pair * 1e9:.4f} ns a pair, at most {100 * self.worst:.0f} % off"
        )

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self)


def measure_growth(runs: int, lengths: tuple[int, ...] = LENGTHS) -> Growth:
    """Causal attention within a window, 2 heads of 64 features, by the native kernels."""
    pairs, seconds = [], []
    for length in lengths:
        q, k, v = torch.randn(3, 1, 2, length, 64, generator=torch.Generator().manual_seed(0)).unbind()
        times = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            attention(q, k, v, mask=_WINDOW, backend="native")
            times.append(time.perf_counter() - began)
        inside = min(length, 1024)
        pairs.append(2 * (inside * (inside + 1) // 2 + (length - inside) * inside))
        seconds.append(statistics.median(times[1:]))
    return fit(lengths, tuple(pairs), tuple(seconds))


def fit(tokens: tuple[int, ...], pairs: tuple[int, ...], seconds: tuple[float, ...]) -> Growth:
    """The line that makes the squares of relative errors least."""
    x, y = torch.tensor(pairs, dtype=torch.float64), torch.tensor(seconds, dtype=torch.float64)
    columns = torch.stack([torch.ones_like(x), x], 1) / y[:, None]
    fixed, per_pair = torch.linalg.lstsq(columns, torch.ones_like(y)[:, None]).solution[:, 0].tolist()
    worst = float(((fixed + per_pair * x) / y - 1).abs().max())
    return Growth(tokens, pairs, seconds, fixed, per_pair, worst)

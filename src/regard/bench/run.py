"""Running a case: equality first, then time, then a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from regard._attention import attention
from regard._errors import RegardError
from regard.bench.cases import Attend, Case
from regard.bench.limits import Limits
from regard.bench.memory import peak_extra
from regard.bench.timing import Pair, alternate
from regard.masks import Causal


class DisagreementError(RegardError, AssertionError):
    """Two ways of the same computation gave different results; no time is reported for a wrong answer."""


@dataclass(frozen=True)
class Measured:
    """A case and its timings."""

    case: Case
    pair: Pair

    limits: Limits | None = None

    @property
    def met(self) -> bool:
        """Whether the ratio is within the case's target, or the time within its slack."""
        mine, other = self.pair.medians
        if self.case.slack is not None:
            return mine <= other + self.case.slack
        return self.pair.ratio <= self.case.target

    @property
    def share(self) -> float | None:
        """Of the machine's peak: of its float32 operations, or of its reading for a decoding step."""
        if self.limits is None or self.case.flops is None:
            return None
        seconds = self.pair.medians[0]
        if self.case.q_len == 1:
            return self.case.bytes_read / seconds / self.limits.read_bytes
        return self.case.flops / seconds / self.limits.flops

    @property
    def rates(self) -> tuple[float, float] | None:
        """Tokens a second, ours and theirs, where the case is a training step."""
        mine, other = self.pair.medians
        return None if self.case.tokens is None else (self.case.tokens / mine, self.case.tokens / other)

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        mine, other = self.pair.medians
        return {
            "name": self.case.name,
            "title": self.case.title,
            "against": self.case.against,
            "shape": list(self.case.shape),
            "seconds": mine,
            "against_seconds": other,
            "ratio": self.pair.ratio,
            "target": self.case.target,
            "dtype": str(self.case.dtype).removeprefix("torch."),
            "share_of_peak": self.share,
            "tokens_a_second": self.rates,
            "met": self.met,
            "runs": [list(self.pair.ours), list(self.pair.theirs)],
        }


@dataclass(frozen=True)
class MemoryUse:
    """Extra memory of a causal forward and backward pass, beside the size of what goes in and comes out."""

    tokens: int
    extra: int
    operands: int

    @property
    def ratio(self) -> float:
        """Extra bytes per byte of inputs, output and gradients."""
        return self.extra / self.operands

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return {"tokens": self.tokens, "extra": self.extra, "operands": self.operands, "ratio": self.ratio}


def measure(case: Case, device: torch.device, runs: int, limits: Limits | None = None) -> Measured:
    """Check that both ways agree, then time them.

    Raises:
        DisagreementError: the results differ by more than their arithmetic explains.
    """
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator, device=device).to(case.dtype) for shape in case.operands)
    mine, other = case.make(device)
    if case.comparable:
        _check(case, mine, other, q, k, v)
    pair = alternate(_job(case, mine, q, k, v), _job(case, other, q, k, v), runs, case.repeat)
    return Measured(case, pair, limits)


def measure_memory(tokens: int, features: int = 64) -> MemoryUse:
    """Blockwise, causal, one head, forward and backward: peak memory beyond inputs and incoming gradient."""
    with _seeded():
        q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 1, tokens, features).unbind())
        g = torch.randn(1, 1, tokens, features)
        small = (x[:, :, :256] for x in (q, k, v))
        torch.autograd.grad(attention(*small, mask=Causal(), backend="blockwise").sum(), (q, k, v))

    def passes() -> tuple[Tensor, ...]:
        out = attention(q, k, v, mask=Causal(), backend="blockwise")
        return (out, *torch.autograd.grad(out, (q, k, v), g))

    kept = 4 * tokens * features * q.element_size()
    return MemoryUse(tokens, peak_extra(passes) - kept, 2 * kept)


def _job(case: Case, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
    if not case.backward:
        return lambda: attend(q, k, v)
    leaves = tuple(x.detach().requires_grad_() for x in (q, k, v))
    return lambda: torch.autograd.grad(attend(*leaves).sum(), leaves)


def _check(case: Case, mine: Attend, other: Attend, q: Tensor, k: Tensor, v: Tensor) -> None:
    got, want = mine(q, k, v), other(q, k, v)
    error = (got - want).abs().max().item()
    # Low precision rounds the weights of one way and not of the other.
    allowed = 1e-4 if case.dtype == torch.float32 else 2**-6
    if not error <= allowed * want.abs().max().item():
        raise DisagreementError(
            f"{case.name}: both ways of one computation must agree: the greatest difference is {error:.2e}. "
            "No time is reported for a wrong answer."
        )


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield

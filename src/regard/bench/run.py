"""Running a case: equality first, then time, then a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard._errors import RegardError
from regard.bench.cases import Attend, Case
from regard.bench.limits import Limits
from regard.bench.timing import Pair, alternate


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
        return self.ratio <= self.case.target

    @property
    def ratio(self) -> float:
        """Ours to theirs: of the times, or of the times a visible pair."""
        mine, other = self.case.pairs
        return self.pair.ratio * other / mine

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
            "ratio": self.ratio,
            "target": self.case.target,
            "slack": self.case.slack,
            "dtype": str(self.case.dtype).removeprefix("torch."),
            "share_of_peak": self.share,
            "tokens_a_second": self.rates,
            "met": self.met,
            "runs": [list(self.pair.ours), list(self.pair.theirs)],
        }


def measure(
    case: Case, device: torch.device, runs: int, limits: Limits | None = None, seconds: float = float("inf")
) -> Measured:
    """Check that both ways agree, then time them, for about so many ``seconds`` at most.

    Raises:
        DisagreementError: the results differ by more than their arithmetic explains.
    """
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator, device=device).to(case.dtype) for shape in case.operands)
    mine, other = case.make(device)
    if case.comparable:
        _check(case, mine, other, q, k, v)
    pair = alternate(_job(case, mine, q, k, v), _job(case, other, q, k, v), runs, case.repeat, seconds)
    return Measured(case, pair, limits)


def _job(case: Case, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], object]:
    if not (case.backward or case.graph):
        return lambda: attend(q, k, v)
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    if case.graph:
        return lambda: attend(q, k, v)
    leaves = (q, k, v, *case.learned())
    # A way that does without what is learned, as plain attention does, has no gradient of it.
    return lambda: torch.autograd.grad(attend(q, k, v).sum(), leaves, allow_unused=True)


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

"""`regard.inspect`: attention whose inner quantities can be read afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from regard._call import make_call
from regard._dispatch import choose
from regard._errors import describe
from regard.backends.base import STATS
from regard.masks import Mask
from regard.scores import ScoreModification
from regard.weights import AttentionWeights
from regard.weights.named import Statistic, checked
from regard.weights.topk import Top


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What `inspect` returns.

    Attributes:
        out: ``(…, H, Lq, Dv)``, equal to what `regard.attention` returns.
        lse: ``(…, H, Lq)``, the natural log of each row's sum of exponentials, after score changes, mask and sinks;
            float32 (float64 for float64 inputs), differentiable; ``-inf`` for a row that sees nothing.
        weights: the attention weights, computed when they are read.
        stats: the statistics asked for, each under what it was asked for by.
    """

    out: Tensor
    lse: Tensor
    weights: AttentionWeights
    stats: dict[Statistic, Any]

    def __repr__(self) -> str:
        stats = ", ".join(f"{name!r}: {_described(x)}" for name, x in self.stats.items())
        tensors = f"out={describe(self.out)}, lse={describe(self.lse)}"
        return f"Inspection({tensors}, weights={self.weights!r}, stats={{{stats}}})"


def inspect(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    score_mod: ScoreModification | Sequence[ScoreModification] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    sinks: Tensor | None = None,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    backend: str | None = None,
    stats: Sequence[Statistic] = (),
) -> Inspection:
    """`regard.attention` that also gives ``lse``, lazy weights and row statistics, at the memory of attention.

    All arguments but ``stats`` are those of `regard.attention`.

    Args:
        q: ``(…, H, Lq, D)``.
        k: ``(…, Hkv, Lk, D)``.
        v: ``(…, Hkv, Lk, Dv)``.
        mask: which query may attend to which key.
        score_mod: one score change or a list.
        scale: factor of the dot products; default ``1/√D``.
        dropout_p: acts on ``out`` alone; the weights are those before dropout.
        sinks: ``(H,)``.
        q_positions: int64 ``(Lq,)`` or ``(B, Lq)``.
        k_positions: int64 ``(Lk,)`` or ``(B, Lk)``.
        backend: name of a backend; default: the best that can do the call.
        stats: statistics to compute together with ``out``, in any order. In the same pass over the keys:
            ``"max_logit" (…, H)``, the largest visible score of each head; ``"max" (…, H, Lq)``, the largest weight
            of each row; ``"entropy" (…, H, Lq)``, ``-Σ w log w`` of each row in nats with the sink as one more
            outcome, differentiable. In one more pass, for they need ``lse`` first, and without a gradient:
            ``"received" (…, H, Lk)``, ``("topk", k)``, ``("pool", rows, cols)`` and ``("pool", rows, cols, "max")``,
            which are what `AttentionWeights.received`, `topk` and `pool` give.

    Returns:
        An `Inspection` with ``out``, ``lse``, ``weights`` and ``stats``.

    Raises:
        ArgumentError: an unknown statistic or arguments that it does not take, and whatever `regard.attention` raises.

    >>> q, k, v = torch.randn(3, 1, 4, 10, 8).unbind()
    >>> seen = inspect(q, k, v, mask=Causal(), stats=("entropy",))
    >>> seen.weights[0, 2, 5].shape, seen.stats["entropy"].shape
    (torch.Size([10]), torch.Size([1, 4, 10]))
    """
    call = make_call(
        q,
        k,
        v,
        mask=mask,
        score_mod=score_mod,
        scale=scale,
        dropout_p=dropout_p,
        sinks=sinks,
        q_positions=q_positions,
        k_positions=k_positions,
    )
    asked = checked(call, stats)
    call = call.with_(wants_lse=True, stats=tuple(name for name in asked if name in STATS))
    chosen = choose(call, backend)
    call = call.seeded()
    result = chosen.run(call)
    assert result.lse is not None
    weights = AttentionWeights(call, result.lse, backend=backend)
    later = [name for name in asked if name not in STATS]
    found: dict[Statistic, Any] = {name: call.restore(x) for name, x in result.stats.items()}
    if later:
        found.update(weights.stats(later))
    return Inspection(
        call.restore(result.out), call.restore(result.lse), weights, {name: found[name] for name in asked}
    )


def _described(found: Tensor | Top) -> str:
    return describe(found) if isinstance(found, Tensor) else f"Top(values={describe(found.values)})"

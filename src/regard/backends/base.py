"""What a backend is: capabilities as data, refusals as sentences, and one way to run a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from regard._call import DTYPES, Call
from regard.masks import Everything

STATS = ("max_logit", "max", "entropy")
"""Statistics of rows that a backend may compute in the same pass as the output; the entropy is differentiable."""

Runner = Callable[[Tensor, Tensor, Tensor], Tensor]


class Result(NamedTuple):
    """What a backend returns, in the canonical shapes of its call.

    Attributes:
        out: ``(B, H, Lq, Dv)`` in the dtype of q.
        lse: ``(B, H, Lq)``, natural log, in the accumulation dtype; None where the call did not want it.
        stats: the statistics that the call asked for: ``max_logit (B, H)``, ``max`` and ``entropy (B, H, Lq)``.
    """

    out: Tensor
    lse: Tensor | None
    stats: dict[str, Tensor]


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do, as data. `Backend.unsupported` turns what is missing into sentences; tests and the
    documentation are generated from it.

    Attributes:
        devices: device types; empty = every device.
        dtypes: dtypes of q, k and v.
        masks: whether any mask, or only `Everything`.
        score_mods: whether score changes.
        sinks: whether attention sinks.
        dropout: whether dropout on the weights.
        lse: whether it returns ``lse``.
        lse_gradient: whether gradients flow through ``lse``.
        gradients: device types on which it has a backward pass; empty = every device.
        stats: the row statistics it computes in the same pass.
        higher_derivatives: whether double backward, forward mode and `torch.func` transforms work.
    """

    devices: tuple[str, ...] = ()
    dtypes: tuple[torch.dtype, ...] = DTYPES
    masks: bool = True
    score_mods: bool = True
    sinks: bool = True
    dropout: bool = True
    lse: bool = True
    lse_gradient: bool = True
    gradients: tuple[str, ...] = ()
    stats: tuple[str, ...] = field(default=STATS)
    higher_derivatives: bool = False


@dataclass(frozen=True, eq=False)
class Gathered:
    """Tensors that one pass over the weights fills, in the accumulation dtype and contiguous where they are not None.

    Attributes:
        top: ``(B, H, Lq)``, the greatest score of each row.
        entropy: ``(B, H, Lq)``, ``Σ_j w_ij (lse_i - s_ij)``.
        received: ``(B, H, Lk)``, ``Σ_i w_ij``.
        mass: ``(B, H, n, m)``, the sum of the weights of a bin; row ``i`` is in bin ``⌊i n / extent[0]⌋``.
        peak: ``(B, H, n, m)``, the greatest weight of a bin, as many bins as ``mass`` where both are wanted.
        lift: ``(B, H, n, m)``, the greatest ``w_ij f_i`` of a bin, and the factors ``f (B, H, Lq)``, at least 0.
        extent: what ``n`` and ``m`` bins would cover if the last ones were whole; default: ``(Lq, Lk)``.
        best: the ``k`` greatest scores of each row ``(B, H, Lq, k)``, filled with ``-inf``, and their columns, int64
            filled with -1; of equal scores the lower column first.
    """

    top: Tensor | None = None
    entropy: Tensor | None = None
    received: Tensor | None = None
    mass: Tensor | None = None
    peak: Tensor | None = None
    lift: tuple[Tensor, Tensor] | None = None
    extent: tuple[int, int] | None = None
    best: tuple[Tensor, Tensor] | None = None


class Backend(ABC):
    """One way to compute attention. Backends never import one another; only the dispatcher knows them all."""

    name: ClassVar[str]
    summary: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def missing(self) -> str | None:
        """Why this backend is not usable on this machine, or None if it is."""
        return None

    def build(self) -> str | None:
        """Which of several builds of this backend is in use here; None where there is but one.

        Raises:
            ArgumentError: one is asked for that cannot run here.
        """
        return None

    def unsupported(self, call: Call) -> list[str]:
        """Why this backend cannot do the call, one sentence a reason; empty if it can."""
        can, device, reasons = self.capabilities, call.q.device.type, []
        absent = self.missing()
        if absent is not None:
            reasons.append(absent)
        if can.devices and device not in can.devices:
            reasons.append(f"runs on {' and '.join(can.devices)} only, and the tensors are on {device}")
        if call.q.dtype not in can.dtypes:
            names = ", ".join(str(d).removeprefix("torch.") for d in can.dtypes)
            reasons.append(f"takes {names} only, and q, k and v are {str(call.q.dtype).removeprefix('torch.')}")
        if not can.masks and not isinstance(call.mask, Everything):
            reasons.append(f"takes no mask, and the call has {call.mask!r}")
        if not can.score_mods and call.score_mods:
            reasons.append(f"takes no score changes, and the call has {', '.join(map(repr, call.score_mods))}")
        if not can.sinks and call.sinks is not None:
            reasons.append("takes no sinks, and the call has some")
        if not can.dropout and call.dropout_p > 0:
            reasons.append(f"has no dropout of its own meaning, and the call has dropout_p={call.dropout_p}")
        if not can.lse and call.wants_lse:
            reasons.append("does not return lse, and the call wants it")
        elif not can.lse_gradient and call.wants_lse and call.needs_grad:
            reasons.append("has no gradient through lse, and the call may want one")
        if can.gradients and device not in can.gradients and call.needs_grad:
            reasons.append(f"has no backward pass on {device}, and a gradient may be wanted")
        absent_stats = [s for s in call.stats if s not in can.stats]
        if absent_stats:
            reasons.append(f"does not compute {', '.join(absent_stats)} in the same pass")
        if not can.higher_derivatives and transformed(call):
            reasons.append(
                'does not work under torch.func transforms or forward-mode derivatives; backend="reference" does'
            )
        return reasons

    def discouraged(self, call: Call) -> list[str]:
        """Why this backend can do the call but should not be picked for it by itself."""
        return []

    def extra_bytes(self, call: Call) -> int | None:
        """Bytes that a forward pass holds beside the operands and the output, or None where that is not known."""
        return None

    def ready(self, call: Call) -> Runner | None:
        """``out`` from other q, k and v of the same shapes, strides and dtypes, prepared; None where nothing is gained.

        The call has 4-D operands of one batch size, a mask without tensors, and nothing else. It may be kept for ever,
        and be called from several threads at once.
        """
        return None

    @abstractmethod
    def run(self, call: Call) -> Result:
        """Compute the call; `unsupported` was empty for it."""

    def gather(self, call: Call, lse: Tensor, wanted: Gathered) -> bool:
        """Fill what is ``wanted`` of the weights ``exp(s - lse)``; False, and nothing done, if this backend cannot.

        Args:
            call: what the weights are of, without dropout.
            lse: ``(B, H, Lq)``, 0 for rows that see nothing.
            wanted: the tensors to fill.
        """
        return False


def transformed(call: Call) -> bool:
    """True when a tensor of the call is inside a `torch.func` transform, or an operand carries a tangent."""
    if torch.compiler.is_compiling():
        return False
    operands = [call.q, call.k, call.v, *((call.sinks,) if call.sinks is not None else ()), *call.score_tensors()]
    positions = [p for p in (call.frame.q_positions, call.frame.k_positions) if p is not None]
    return any(
        torch._C._functorch.is_functorch_wrapped_tensor(t) for t in (*operands, *call.mask.tensors(), *positions)
    ) or any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in operands)

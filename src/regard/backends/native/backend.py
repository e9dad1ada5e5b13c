"""The native backend: what it can do, and one way to run it."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._call import Call
from regard.backends.base import Backend, Capabilities, Gathered, Result, Runner
from regard.backends.native import library, limits, masks, operators, scores, spelling
from regard.backends.native.function import Attention, forward
from regard.backends.native.plan import Plan
from regard.backends.native.ready import Ready, ReadyWithGradient
from regard.backends.native.scores import Added
from regard.backends.native.statistics import gather


class Native(Backend):
    """C++ kernels for the instruction set of this processor."""

    name = "native"
    summary = "compiled kernels for this processor, forward and backward"
    capabilities = Capabilities(
        devices=("cpu",),
        dtypes=limits.DTYPES,
    )

    def missing(self) -> str | None:
        return library.missing()

    def build(self) -> str:
        """The variant in use, and those that this processor could run."""
        return f"{library.variant()} of {', '.join(library.supported())}"

    def unsupported(self, call: Call) -> list[str]:
        reasons = super().unsupported(call)
        if reasons:
            return reasons
        reasons += [*limits.widths(call), *scores.unsupported(call)]
        if torch.compiler.is_compiling():
            # The operator copies what has another stride, and looks at sizes and masks when it runs.
            if call.stats:
                reasons.append(f"computes {', '.join(call.stats)} outside of graphs only")
            if spelling.spell(call.mask) is None:
                reasons.append(f"has an operator for regard's own masks of tensors, and the call has {call.mask!r}")
            return reasons
        for name, x in (("q", call.q), ("k", call.k), ("v", call.v)):
            if type(x) not in (Tensor, torch.nn.Parameter):
                reasons.append(f"takes plain tensors, and {name} is a {type(x).__name__}")
            if x.stride(-1) != 1 and x.shape[-1] > 1:
                reasons.append(f"takes a unit last stride, and {name} has strides {x.stride()}")
        reasons += limits.lengths(call)
        large = None if reasons else masks.too_large(call.mask, call.frame)
        return [*reasons, large] if large else reasons

    def extra_bytes(self, call: Call) -> int:
        """The packed keys and values, and a mask's intervals or bits; the scores of a tile are too few to count."""
        batch, kv_heads, k_len, width = call.k.shape
        packed = 4 * batch * kv_heads * k_len * (width + call.v.shape[3]) if call.q.shape[2] * call.group > 384 else 0
        return packed + masks.extra_bytes(call.mask, call.frame)

    def run(self, call: Call) -> Result:
        if torch.compiler.is_compiling():
            return _in_graph(call)
        with library.alone():
            return _run(call)

    def gather(self, call: Call, lse: Tensor, wanted: Gathered) -> bool:
        if self.missing() is not None or self.unsupported(call):
            return False
        with library.alone():
            gather(call, lse, wanted)
        return True

    def ready(self, call: Call) -> Runner | None:
        plain = not call.score_mods and call.sinks is None and call.dropout_p == 0 and not call.wants_lse
        if (
            not plain
            or not masks.is_band(call.mask, call.frame)
            or 0 in (*call.q.shape, *call.k.shape, call.v.shape[3])
        ):
            return None
        kept = masks.kernel_mask(call.mask, call.frame, call.group)
        kind = ReadyWithGradient if call.needs_grad else Ready
        return kind(Plan(kept, (), call.scale, 0.0, None), call.q.detach(), call.k.detach(), call.v.detach())


def _run(call: Call) -> Result:
    library.variant()
    assert not isinstance(call.seed, Tensor)
    changes, (q, k, v) = scores.changes(call), _operands(call)
    mask = masks.kernel_mask(call.mask, call.frame, call.group)
    plan = Plan(mask, tuple(changes), call.scale, call.dropout_p, call.seed, call.stats)
    if call.needs_grad:
        tables = [change.table for change in changes if isinstance(change, Added)]
        out, lse, *rows = Attention.apply(plan, q, k, v, call.sinks, *tables)  # type: ignore[no-untyped-call]  # torch's
        stats = dict(zip(call.stats, rows, strict=True))
    else:
        out, lse, stats = forward(plan, q, k, v, call.sinks)
    return Result(out.to(call.q.dtype), lse if call.wants_lse else None, stats)


def _in_graph(call: Call) -> Result:
    out, lse = operators.attention(call, *_operands(call), scores.changes(call))
    return Result(out.to(call.q.dtype), lse if call.wants_lse else None, {})


def _operands(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v; float32 where the sinks or a tensor of a score change want a gradient.

    The gradients of those float32 tensors would show that scores and weights are rounded in low precision.
    """
    learned = (*call.score_tensors(), *(() if call.sinks is None else (call.sinks,)))
    if call.needs_grad and any(t.requires_grad for t in learned):
        return call.q.float(), call.k.float(), call.v.float()
    return call.q, call.k, call.v

"""The autograd function around the two passes, and the backend itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regard._autocast import without_autocast
from regard._call import Call
from regard._derivatives import refuse_second, refuse_several
from regard.backends.base import Backend, Capabilities, Result
from regard.backends.blockwise.backward import RowGradients, backward
from regard.backends.blockwise.forward import RowStats, forward
from regard.backends.blockwise.plan import tile_elements
from regard.backends.tile import visible_only


class Blockwise(Backend):
    """Online softmax over the blocks that are not EMPTY, in plain PyTorch, with memory of the order of the tokens."""

    name = "blockwise"
    summary = "online softmax over the visible blocks, plain torch, O(L) memory, every device"
    capabilities = Capabilities()

    def extra_bytes(self, call: Call) -> int:
        size = call.accumulation_dtype.itemsize
        copies = call.q.numel() if call.q.dtype == call.accumulation_dtype else 2 * call.q.numel() + 2 * call.k.numel()
        # Four tiles side by side: their scores, their mask, and one more on the way from the one to the other.
        return size * (copies + 12 * tile_elements(call.q.device))

    def run(self, call: Call) -> Result:
        if torch.compiler.is_compiling():
            # As a decorator this would import the whole compiler together with regard.
            untraced: Callable[[Call], Result] = torch.compiler.disable(self._run)
            return untraced(call)
        return self._run(call)

    def _run(self, call: Call) -> Result:
        tensors = call.score_tensors() if torch.is_grad_enabled() else ()
        with without_autocast(call.q.device):
            out, lse, *stats = _Blockwise.apply(  # type: ignore[no-untyped-call]
                call, call.q, call.k, call.v, call.sinks, *tensors
            )
        given = dict(zip(("entropy", "max_logit", "max"), stats, strict=True))
        return Result(out, lse, {name: given[name] for name in call.stats})


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: Call, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, *score_tensors: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, v = visible_only(call, q, k, v)
        rows = forward(call, q, k, v)
        ctx.call = call
        ctx.score_tensors = score_tensors
        # The backward pass reads these again: saved, autograd notices when one was changed in place.
        frame = call.frame
        reread = (sinks, *score_tensors, *call.mask.tensors(), frame.q_positions, frame.k_positions)
        counted = (t for t in reread if t is not None and not t.is_inference())
        ctx.save_for_backward(q, k, v, rows.out, rows.lse, rows.entropy, *counted)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(x for x in (rows.max_logit, rows.max) if x is not None))
        return rows.out.to(call.q.dtype), rows.lse, rows.entropy, rows.max_logit, rows.max

    @staticmethod
    def backward(
        ctx: Any, g_out: Tensor | None, g_lse: Tensor | None, g_entropy: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        refuse_several(g_out, g_lse, g_entropy)
        call: Call = ctx.call
        q, k, v, out, lse, entropy, *_ = ctx.saved_tensors
        score_tensors: tuple[Tensor, ...] = ctx.score_tensors
        with torch.no_grad(), without_autocast(q.device):
            g = torch.zeros_like(out) if g_out is None else g_out.to(out.dtype)
            # A row that sees nothing depends on nothing, whatever comes in there: 0 * NaN is NaN.
            empty = lse == -torch.inf
            given = RowGradients(
                torch.where(empty[..., None], 0, g),
                *(None if x is None else torch.where(empty, 0, x) for x in (g_lse, g_entropy)),
            )
            own = backward(call, q, k, v, RowStats(out, lse, entropy), given)
        grads: list[Tensor | None] = [own.q.to(q.dtype), own.k.to(k.dtype), own.v.to(v.dtype)]
        grads += [None if own.sinks is None or call.sinks is None else own.sinks.to(call.sinks.dtype)]
        grads += [
            None if grad is None else grad.to(t.dtype) for grad, t in zip(own.score_tensors, score_tensors, strict=True)
        ]
        anchors = (call.q, call.k, call.v, call.sinks, *score_tensors, g_out, g_lse)
        return (None, *refuse_second(grads, anchors))

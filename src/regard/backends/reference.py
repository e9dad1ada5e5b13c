"""The definition: dense attention in plain PyTorch, written to be read.

    s      = scale * q kᵀ                     scores
    s      = score_mod(s), one after another
    s      = -inf where the mask hides        (where, not multiply: what is hidden reaches nothing)
    w      = exp(s - lse),  lse = log(Σ exp(s) [+ exp(sink)])
    out    = dropout(w) v

It holds every score at once, so its memory grows with Lq * Lk. Everything works on it: any dtype, any mask, double
backward, forward mode, `torch.func`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regard import _dropout
from regard._autocast import without_autocast
from regard._call import Call
from regard._coordinates import Coordinates
from regard.backends.base import Backend, Capabilities, Result
from regard.backends.tile import shielded


class Reference(Backend):
    """Dense attention in plain PyTorch."""

    name = "reference"
    summary = "the definition: dense, plain torch, every derivative"
    capabilities = Capabilities(higher_derivatives=True)

    def discouraged(self, call: Call) -> list[str]:
        return ["holds all Lq x Lk scores at once"]

    def extra_bytes(self, call: Call) -> int:
        pairs = call.frame.batch * call.frame.heads * call.frame.q_len * call.frame.k_len
        # At the least the scores and the weights.
        return 2 * pairs * call.accumulation_dtype.itemsize

    def run(self, call: Call) -> Result:
        # The operands have been cast already; autocast would cast the products too.
        with without_autocast(call.q.device):
            return self._run(call)

    def _run(self, call: Call) -> Result:
        dtype = call.accumulation_dtype
        at = call.frame.everywhere()
        shape = (*call.q.shape[:3], call.k.shape[2])
        allowed = call.mask.allowed(at).expand(shape)
        q, k, v = _visible_only(call, allowed)
        s = call.scale * (q.to(dtype) @ k.to(dtype).mT)
        s = _modified(call, s, allowed, at)
        s = torch.where(allowed, s, -torch.inf)
        w, lse = _softmax(s, call.sinks)
        dropped = w
        if call.seed is not None:
            kept = _dropout.keep(call.seed, call.dropout_p, at)
            dropped = torch.where(kept, w / (1 - call.dropout_p), 0)
        # A row that sees nothing depends on nothing, whatever gradient comes in there: 0 * NaN is NaN.
        out = torch.where(w.any(-1, keepdim=True), dropped @ v.to(dtype), 0).to(call.q.dtype)
        return Result(out, lse, {name: _STATS[name](s, w, lse, call.sinks) for name in call.stats})


def _visible_only(call: Call, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values repeated for the query heads they serve; whatever no query sees becomes 0.

    0 * NaN is NaN, so a hidden key is replaced before it is multiplied, in the scores and in their gradient; likewise
    a query that sees nothing.
    """
    k, v = (x.repeat_interleave(call.group, 1) for x in (call.k, call.v))
    seen = allowed.any(2)
    if call.group > 1:
        seen = seen.unflatten(1, (-1, call.group)).any(2).repeat_interleave(call.group, 1)
    sees = allowed.any(3)[..., None]
    return (
        torch.where(sees, call.q, 0),
        torch.where(seen[..., None], k, 0),
        torch.where(seen[..., None], v, 0),
    )


def _modified(call: Call, s: Tensor, allowed: Tensor, at: Coordinates) -> Tensor:
    """The score changes in order; a hidden pair's score stays 0 on the way, so nothing odd there has a gradient."""
    for mod in call.score_mods:
        scores, where = shielded(mod, s, allowed, at)
        s = torch.where(allowed, mod.modify(scores, where), 0)
    return s


def _softmax(s: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax over the last dim and its logsumexp; a row of -inf has weights 0 and ``lse`` -inf or its sink."""
    sink = None if sinks is None else sinks.to(s.dtype)[:, None, None].expand(*s.shape[:-1], 1)
    everything = s if sink is None else torch.cat([s, sink], -1)
    if everything.shape[-1] == 0:
        return s, s.new_full(s.shape[:-1], -torch.inf)
    # Softmax does not depend on the shift, so no derivative flows through it.
    top = everything.detach().amax(-1, keepdim=True)
    top = torch.where(top == -torch.inf, 0, top)
    e = torch.exp(s - top)
    total = e.sum(-1, keepdim=True)
    if sink is not None:
        total = total + torch.exp(sink - top)
    empty = total == 0
    total = torch.where(empty, 1, total)
    lse = torch.where(empty, -torch.inf, top + torch.log(total))
    return e / total, lse[..., 0]


def _entropy(s: Tensor, w: Tensor, lse: Tensor, sinks: Tensor | None) -> Tensor:
    """``-Σ w log w`` in nats, ``log w = s - lse``; the sink is an outcome like any other."""
    finite = torch.where(lse == -torch.inf, 0, lse)[..., None]
    seen = w > 0
    h = -torch.where(seen, w * (torch.where(seen, s, 0) - finite), 0).sum(-1)
    if sinks is not None:
        sink = sinks.to(s.dtype)[:, None]
        share = torch.exp(torch.where(lse == -torch.inf, -torch.inf, sink - finite[..., 0]))
        alive = share > 0
        h = h - torch.where(alive, share * (torch.where(alive, sink, 0) - finite[..., 0]), 0)
    return h


def _max_logit(s: Tensor, w: Tensor, lse: Tensor, sinks: Tensor | None) -> Tensor:
    if s.shape[-1] == 0 or s.shape[-2] == 0:
        return s.new_full(s.shape[:2], -torch.inf)
    return s.amax((-2, -1))


def _max(s: Tensor, w: Tensor, lse: Tensor, sinks: Tensor | None) -> Tensor:
    return w.amax(-1) if w.shape[-1] else w.new_zeros(w.shape[:-1])


_STATS = {"entropy": _entropy, "max_logit": _max_logit, "max": _max}

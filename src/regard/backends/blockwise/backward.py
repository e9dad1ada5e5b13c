"""The backward pass, tile by tile, from ``lse`` alone: weights are recomputed, never stored (Dao 2023).

With ``p = exp(s - lse)``, ``g`` the gradient of out, and dropout's ``z ∈ {0, 1/(1-p_drop)}``:

    dv = (p z)ᵀ g
    ds = p (z g vᵀ - δ + g_lse - g_H (log p + H)),   δ = Σ g · out
    dq = scale ds k,   dk = scale dsᵀ q

where ``g_lse`` and ``g_H`` are the gradients of lse and entropy H. Score changes hand ``ds`` on through their own
derivatives. One owner and one order of summation for every key block make the result the same bits every time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from regard import _dropout
from regard._call import Call
from regard._coordinates import Coordinates
from regard.backends.blockwise.forward import RowStats, prepared
from regard.backends.blockwise.plan import plan
from regard.backends.blockwise.steps import Chunk, Step
from regard.backends.tile import exp_, grouped, shielded, weigh
from regard.scores.base import Sums


class RowGradients(NamedTuple):
    """The gradients that come in, in the accumulation dtype: of out, and of lse and entropy where there are any."""

    out: Tensor
    lse: Tensor | None
    entropy: Tensor | None


class Gradients(NamedTuple):
    """The gradients that go out: of q, k, v, the sinks, and each tensor of the score changes, in order."""

    q: Tensor
    k: Tensor
    v: Tensor
    sinks: Tensor | None
    score_tensors: tuple[Tensor | None, ...]


def backward(call: Call, q: Tensor, k: Tensor, v: Tensor, saved: RowStats, given: RowGradients) -> Gradients:
    """All gradients of a call, from what `forward` left."""
    dtype = call.accumulation_dtype
    dq, dk, dv = (torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (q, k, v))
    tensors = call.score_tensors()
    totals = {id(t): torch.zeros(t.shape, dtype=dtype, device=t.device) for t in tensors if t.requires_grad}

    delta = (given.out * saved.out).sum(-1)
    # The part of ds / p that is the same for a whole row.
    row = -delta if given.lse is None else given.lse - delta
    if given.entropy is not None and saved.entropy is not None:
        row = row - given.entropy * saved.entropy
    # A row that sees nothing has lse -inf; +inf makes its weights 0 instead of NaN.
    lse = torch.where(saved.lse == -torch.inf, torch.inf, saved.lse)
    q, k, v = prepared(call, q, k, v)
    for step in plan(call):
        _step(step, call, (q, k, v), lse, given, row, (dq, dk, dv), lambda tensor: totals[id(tensor)])
    return Gradients(dq, dk, dv, _sinks(call, saved, given, row), tuple(totals.get(id(t)) for t in tensors))


def _step(
    step: Step,
    call: Call,
    operands: tuple[Tensor, Tensor, Tensor],
    lse: Tensor,
    given: RowGradients,
    row: Tensor,
    into: tuple[Tensor, Tensor, Tensor],
    sums: Sums,
) -> None:
    q, k, v = operands
    dq, dk, dv = into
    queries = step.queries(q)
    g = step.queries(given.out)
    lse = step.queries(lse, beyond=torch.inf)[..., None]
    shared = step.queries(row)[..., None]
    g_entropy = None if given.entropy is None else step.queries(given.entropy)[..., None]
    into_q = torch.zeros_like(queries)
    for chunk in step.chunks:
        keys, values = step.keys(k, chunk), step.keys(v, chunk)
        at = step.at(call.frame, chunk) if call.score_mods or call.seed is not None else None
        before: list[tuple[Tensor, Coordinates]] = []
        s = grouped(queries, keys)
        allowed = step.allowed(call, chunk) if call.score_mods else None
        for mod in call.score_mods:
            assert at is not None
            scores, where = shielded(mod, s, allowed, at)
            before.append((scores, where))
            s = mod.modify(scores, where)
        s = step.hide(s, call, chunk)
        log_p = s.sub_(lse)
        p = exp_(log_p if g_entropy is None else log_p.clone())
        ds = grouped(g, values)
        if call.seed is not None and at is not None:
            # A product, not a choice: nobody predicts a random branch.
            z = _dropout.keep(call.seed, call.dropout_p, at).to(p.dtype).mul_(1 / (1 - call.dropout_p))
            ds *= z
            _add_transposed(step, chunk, call, dv, z.mul_(p), g)
        else:
            _add_transposed(step, chunk, call, dv, p, g)
        ds.add_(shared)
        if g_entropy is not None:
            ds -= g_entropy * torch.where(p > 0, log_p, 0)
        ds.mul_(p)
        for mod, (scores, where) in zip(reversed(call.score_mods), reversed(before), strict=True):
            ds = mod.backward(scores, ds, where, sums)
            if allowed is not None:
                ds = torch.where(allowed, ds, 0)
        into_q += weigh(ds, keys)
        _add_transposed(step, chunk, call, dk, ds, queries)
    step.store(dq, into_q * call.scale)


def _add_transposed(step: Step, chunk: Chunk, call: Call, total: Tensor, weights: Tensor, rows: Tensor) -> None:
    """Add ``weightsᵀ rows`` to the keys of a chunk, summed over the query heads that share a key/value head."""
    n, heads, count, columns = weights.shape
    stacked = (n, heads // call.group, call.group * count)
    step.add(total, chunk, weights.reshape(*stacked, columns).mT @ rows.reshape(*stacked, rows.shape[-1]))


def _sinks(call: Call, saved: RowStats, given: RowGradients, row: Tensor) -> Tensor | None:
    """A sink is a key without a value: its share of the softmax times the same row term."""
    if call.sinks is None:
        return None
    log_share = call.sinks.to(row.dtype)[:, None] - saved.lse
    log_share = torch.where(saved.lse == -torch.inf, -torch.inf, log_share)
    share = torch.exp(log_share)
    if given.entropy is not None:
        row = row - given.entropy * torch.where(share > 0, log_share, 0)
    return torch.where(share > 0, share * row, 0).sum((0, 2))

"""The scores of one tile: the formula of `regard.backends.reference` on a part of the rows and columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates
from regard.masks import Everything
from regard.scores import ScoreModification

_STRIP = 128
_LOG2_E = 1 / math.log(2)


def grouped(q: Tensor, k: Tensor) -> Tensor:
    """``q kᵀ`` for grouped heads without repeating k: ``(n, H, r, D)`` and ``(n, Hkv, c, D)`` to ``(n, H, r, c)``."""
    n, heads, rows, width = q.shape
    kv_heads = k.shape[1]
    if heads == kv_heads:
        return q @ k.mT
    stacked = q.reshape(n, kv_heads, heads // kv_heads * rows, width)
    return (stacked @ k.mT).view(n, heads, rows, k.shape[2])


def weigh(p: Tensor, v: Tensor) -> Tensor:
    """``p v`` for grouped heads without repeating v: ``(n, H, r, c)`` and ``(n, Hkv, c, Dv)`` to ``(n, H, r, Dv)``."""
    n, heads, rows, columns = p.shape
    kv_heads = v.shape[1]
    if heads == kv_heads:
        return p @ v
    return (p.reshape(n, kv_heads, heads // kv_heads * rows, columns) @ v).view(n, heads, rows, v.shape[-1])


def hide_(s: Tensor, allowed: Tensor, call: Call) -> Tensor:
    """Set hidden scores to ``-inf``, in place."""
    # On a CPU this is several times faster than masked_fill_, which is needed only where NaN would survive it: without
    # score changes a hidden score is NaN only if its key is, and is seen by another query.
    torch.minimum(s, torch.where(allowed, torch.inf, -torch.inf).to(s.dtype), out=s)
    return s.masked_fill_(~allowed, -torch.inf) if call.score_mods and torch.isnan(s.sum()) else s


def exp_(x: Tensor) -> Tensor:
    """``exp(x)`` in place."""
    # exp2 has no slow path; the vectorised exp takes twenty times longer on -inf and where the result is subnormal, and
    # in a forked child it waits for threads that stayed with the parent.
    return x.mul_(_LOG2_E).exp2_()


def visible_only(call: Call, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The operands with zeros where no query sees a key, and where a query sees nothing.

    0 * NaN is NaN, so whatever is hidden from everyone must go before it is multiplied, in the forward pass and in
    the backward. Operands that hold only finite numbers, the usual case, come back as they are.
    """
    frame = call.frame
    if isinstance(call.mask, Everything) or 0 in (frame.q_len, frame.k_len) or all(_finite(x) for x in (q, k, v)):
        return q, k, v
    rows = call.mask.intervals(frame)
    if rows is not None:
        sees, seen = rows.seeing_rows()[:, None], rows.seen_keys()[:, None]
    else:
        sees, seen = _visible_pairs(call)
    if seen.shape[1] > 1:
        seen = seen.unflatten(1, (-1, call.group)).any(2)
    sees, seen = sees[..., None], seen[..., None]
    return torch.where(sees, q, 0), torch.where(seen, k, 0), torch.where(seen, v, 0)


def _finite(x: Tensor) -> bool:
    # A finite sum has finite terms; an overflowing sum only costs the careful path.
    return bool(torch.isfinite(x.detach().sum(dtype=torch.promote_types(x.dtype, torch.float32))))


def _visible_pairs(call: Call) -> tuple[Tensor, Tensor]:
    """Which queries see a key ``(B or 1, H or 1, Lq)`` and which keys a query sees, asking the mask strip by strip."""
    frame = call.frame
    sees, seen = [], None
    for first in range(0, frame.q_len, _STRIP):
        rows = slice(first, min(first + _STRIP, frame.q_len))
        allowed = call.mask.allowed(frame.tile(rows, slice(0, frame.k_len)))
        lead = (1, 1, *allowed.shape[:-2])[-2:]
        allowed = allowed.expand(*lead, rows.stop - rows.start, frame.k_len)
        sees.append(allowed.any(-1))
        here = allowed.any(-2)
        seen = here if seen is None else seen | here
    assert seen is not None
    return torch.cat(sees, -1), seen


def shielded(mod: ScoreModification, s: Tensor, allowed: Tensor | None, at: Coordinates) -> tuple[Tensor, Coordinates]:
    """The scores and places to differentiate ``mod`` at, so that nothing odd at a hidden pair has a gradient.

    A hidden score becomes 0. A function that nobody knows may have an infinite derivative at a hidden pair, whatever
    its score; it is handed a visible pair instead.

    Args:
        mod: the score change.
        s: scores ``(n, H, r, c)``.
        allowed: which pairs are visible, broadcastable to ``s``; None when all are.
        at: where the scores stand.
    """
    if allowed is None:
        return s, at
    if mod.bounded_derivative or not s.numel():
        return torch.where(allowed, s, 0), at
    whole = allowed.expand(s.shape)
    first = whole.flatten().to(torch.int8).argmax()
    # Selected, not indexed, which in a graph would need the number.
    shown = s.detach().flatten().index_select(0, first.reshape(1))
    return torch.where(whole, s, shown), at.where(whole, at.pick(first, s.shape))


def scores(call: Call, at: Coordinates, q: Tensor, k: Tensor) -> Tensor:
    """The final scores at ``at``: scaled, changed, and ``-inf`` where the mask hides.

    Args:
        call: supplies scale, score changes and mask.
        at: where the tile stands; broadcasts to ``(n, H, r, c)``.
        q: the tile's queries ``(n, H, r, D)`` in the accumulation dtype.
        k: the tile's keys ``(n, Hkv, c, D)`` in the accumulation dtype.

    Returns:
        ``(n, H, r, c)`` in the accumulation dtype.
    """
    s = grouped(q, k) * call.scale
    for mod in call.score_mods:
        s = mod.modify(s, at)
    return s if isinstance(call.mask, Everything) else torch.where(call.mask.allowed(at), s, -torch.inf)

"""A rectangular part of the weights as a tensor, differentiable: ``w = exp(s - lse)`` for chosen rows and columns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates
from regard.backends.tile import grouped, shielded
from regard.masks import Everything

Places = slice | Tensor
"""Where along one dim: a slice with start, stop and no step, or an int64 tensor ``(n,)``."""


class Selection(NamedTuple):
    """A part of ``(B, H, Lq, Lk)``: the product of places along each dim."""

    batch: Places
    heads: Places
    rows: Places
    cols: Places

    @property
    def shape(self) -> tuple[int, ...]:
        """How many places there are along each dim."""
        return tuple(p.stop - p.start if isinstance(p, slice) else len(p) for p in self)


def part(call: Call, lse: Tensor, selection: Selection) -> Tensor:
    """The weights of a selection, ``selection.shape``, in the accumulation dtype.

    Keys that no selected row sees and queries that see no selected key are replaced by 0 before they are multiplied,
    so that nothing odd in them reaches a gradient.
    """
    batch, heads, rows, cols = selection
    at = _coordinates(call, selection)
    q = _take(_take(_take(call.q, 0, batch), 1, heads), 2, rows).to(call.accumulation_dtype)
    k = _take(_take(_take(call.k, 0, batch), 1, _kv_heads(call, heads)), 2, cols).to(call.accumulation_dtype)
    row_lse = finite(_take(_take(_take(lse, 0, batch), 1, heads), 2, rows)[..., None])
    if isinstance(call.mask, Everything) and not call.score_mods:
        return torch.exp(call.scale * grouped(q, k) - row_lse)
    allowed = call.mask.allowed(at).expand(selection.shape)
    seen = allowed.any(2)
    if k.shape[1] != q.shape[1]:
        seen = seen.unflatten(1, (k.shape[1], -1)).any(2)
    q = torch.where(allowed.any(3)[..., None], q, 0)
    k = torch.where(seen[..., None], k, 0)
    s = call.scale * grouped(q, k)
    for mod in call.score_mods:
        s = mod.modify(*shielded(mod, s, allowed, at))
    return torch.exp(torch.where(allowed, s, -torch.inf) - row_lse)


def finite(lse: Tensor) -> Tensor:
    """``lse`` with 0 for rows that see nothing, whose scores are all ``-inf``: their weights come out as 0, not NaN."""
    return torch.where(lse == -torch.inf, 0, lse)


def _coordinates(call: Call, selection: Selection) -> Coordinates:
    batch, heads, rows, cols = selection
    if isinstance(batch, slice) and isinstance(heads, slice) and isinstance(rows, slice) and isinstance(cols, slice):
        return call.frame.tile(rows, cols, batch, heads)
    b, h, i, j = (torch.arange(p.start, p.stop, device=call.q.device) if isinstance(p, slice) else p for p in selection)
    return call.frame.at(b[:, None, None, None], h[:, None, None], i[:, None], j)


def _kv_heads(call: Call, heads: Places) -> Places:
    """The key/value heads of the query heads; once each when all are wanted, which `grouped` understands."""
    if isinstance(heads, slice):
        if heads.stop - heads.start == call.q.shape[1]:
            return slice(0, call.k.shape[1])
        heads = torch.arange(heads.start, heads.stop, device=call.q.device)
    return heads // call.group


def _take(x: Tensor, dim: int, places: Places) -> Tensor:
    if isinstance(places, Tensor):
        return x.index_select(dim, places)
    return x.narrow(dim, places.start, places.stop - places.start)

"""What head scores are computed from: one layer's attention call, and what is known beside it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regard._call import Call
from regard.backends.tile import grouped
from regard.weights.part import finite

_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Material:
    """One layer.

    Attributes:
        call: its attention call.
        lse: ``(B, H, Lq)``.
        ids: the token of each key, int64 ``(B, Lk)``, or None.
        value_norms: ``‖v_j W_O^h‖``, ``(B, H, Lk)``, or None.
        crosses: whether queries and keys are of two sequences.
    """

    call: Call
    lse: Tensor
    ids: Tensor | None = None
    value_norms: Tensor | None = None
    crosses: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(B, H, Lq, Lk)``."""
        batch, heads, q_len, _ = self.call.q.shape
        return batch, heads, q_len, self.call.k.shape[2]

    @cached_property
    def sees(self) -> Tensor:
        """Rows that see something, bool ``(B, H, Lq)``."""
        return self.lse > -torch.inf

    @cached_property
    def own(self) -> Tensor:
        """The column of each query's own key, by position, int64 ``(1 or B, Lq)``; -1 where there is none."""
        q_pos, k_pos = self.call.frame.q_pos, self.call.frame.k_pos
        if self.crosses or not k_pos.shape[1]:
            return torch.full_like(q_pos, -1)
        batch = max(q_pos.shape[0], k_pos.shape[0])
        ordered, order = k_pos.expand(batch, -1).sort(dim=1, stable=True)
        wanted = q_pos.expand(batch, -1).contiguous()
        place = torch.searchsorted(ordered.contiguous(), wanted).clamp(max=k_pos.shape[1] - 1)
        found = ordered.gather(1, place) == wanted
        return torch.where(found, order.gather(1, place), -1)

    @cached_property
    def first(self) -> Tensor:
        """The first column that any query of a batch entry sees, int64 ``(B,)``: behind padding on the left."""
        batch, _, q_len, k_len = self.shape
        rows = self.call.mask.intervals(self.call.frame)
        if rows is not None:
            seen = rows.seen_keys().expand(batch, -1)
        else:
            found = torch.zeros((batch, k_len), dtype=torch.bool, device=self.lse.device)
            for start in range(0, q_len, 256):
                at = self.call.frame.tile(slice(start, min(start + 256, q_len)), slice(0, k_len))
                found |= self.call.mask.allowed(at).expand(at.shape).flatten(1, 2).any(1)
            seen = found
        return seen.to(torch.int8).argmax(1) if k_len else torch.zeros(batch, dtype=torch.int64)

    def over_rows(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """The mean of ``x (B, H, Lq)`` over the rows that see something, of those over ``rows``, bool; ``(B, H)``."""
        counted = self.sees if rows is None else self.sees & rows
        total = torch.where(counted, x.to(torch.float64), 0).sum(-1)
        return total / counted.sum(-1)

    @torch.no_grad()
    def at(self, rows: Tensor, cols: Tensor) -> Tensor:
        """The weights of single pairs: ``(B, H, n)`` for rows and columns int64 ``(B, n)``.

        Of the order of ``n D`` work a head: nothing else of the matrix is computed.
        """
        batch, heads, _, _ = self.shape
        call, count = self.call, rows.shape[1]
        out = self.lse.new_zeros((batch, heads, count))
        step = max(_CHUNK // (heads * call.q.shape[3]), 1)
        for b in range(batch):
            for start in range(0, count, step):
                i, j = rows[b, start : start + step], cols[b, start : start + step]
                out[b, :, start : start + step] = self._pairs(b, i, j)
        return out

    def _pairs(self, b: int, i: Tensor, j: Tensor) -> Tensor:
        """Weights ``(H, n)`` of the pairs ``(i, j)`` of batch entry ``b``."""
        call, heads = self.call, self.call.q.shape[1]
        dtype = call.accumulation_dtype
        q, k = call.q[b, :, i].to(dtype), call.k[b, :, j].to(dtype)
        grown = q.unflatten(0, (k.shape[0], -1)) * k[:, None]
        s = call.scale * grown.sum(-1).flatten(0, 1)[None, :, :, None]
        entry = torch.full((1, 1, 1, 1), b, device=q.device)
        h = torch.arange(heads, device=q.device)[None, :, None, None]
        at = call.frame.at(entry, h, i[:, None], j[:, None])
        allowed = call.mask.allowed(at).expand(s.shape)
        for mod in call.score_mods:
            s = mod.modify(s, at)
        s = torch.where(allowed, s, -torch.inf)
        return torch.exp(s - finite(self.lse[b, :, i])[None, :, :, None])[0, :, :, 0]

    @torch.no_grad()
    def rows_of(self, rows: Tensor) -> Tensor:
        """The weights of whole rows ``(B, H, n, Lk)``, for rows int64 ``(n,)``."""
        call = self.call
        dtype = call.accumulation_dtype
        batch, heads, _, k_len = self.shape
        b, h = torch.arange(batch, device=rows.device), torch.arange(heads, device=rows.device)
        j = torch.arange(k_len, device=rows.device)
        at = call.frame.at(b[:, None, None, None], h[:, None, None], rows[:, None], j)
        s = grouped(call.q[:, :, rows].to(dtype), call.k.to(dtype)) * call.scale
        for mod in call.score_mods:
            s = mod.modify(s, at)
        s = torch.where(call.mask.allowed(at), s, -torch.inf)
        return torch.exp(s - finite(self.lse[:, :, rows])[..., None])

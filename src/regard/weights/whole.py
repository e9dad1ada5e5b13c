"""All weights at once, for lengths at which that is bearable; gathered tile by tile."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from regard._call import Call
from regard._derivatives import refuse_second
from regard.masks import Everything
from regard.weights.part import finite
from regard.weights.stream import TILE, Reduction, Tile


class Whole(Reduction):
    """``w``: ``(B, H, Lq, Lk)``."""

    def __init__(self, call: Call) -> None:
        self._w = call.q.new_zeros((*call.q.shape[:3], call.k.shape[2]), dtype=call.accumulation_dtype)

    def update(self, tile: Tile) -> None:
        self._w[tile.batch, :, tile.rows, tile.cols] = tile.weights

    def finish(self, lse: Tensor) -> Tensor:
        return self._w


class HeadMean(Reduction):
    """``1/H Σ_h w_hij``: ``(B, 1, Lq, Lk)``."""

    def __init__(self, call: Call) -> None:
        batch, _, q_len, _ = call.q.shape
        self._mean = call.q.new_zeros((batch, 1, q_len, call.k.shape[2]), dtype=call.accumulation_dtype)

    def update(self, tile: Tile) -> None:
        # A tile holds every head, and no pair is in two tiles.
        self._mean[tile.batch, 0, tile.rows, tile.cols] = tile.weights.mean(1)

    def finish(self, lse: Tensor) -> Tensor:
        return self._mean


def is_plain(call: Call) -> bool:
    """Whether every pair is visible and its score is ``scale · q · k``, so that `plain_head_mean` will do."""
    return isinstance(call.mask, Everything) and not call.score_mods and call.group == 1


def plain_head_mean(call: Call, lse: Tensor) -> Tensor:
    """`HeadMean` of a plain call, ``(B, 1, Lq, Lk)``, differentiable once."""
    q, k = (x.to(call.accumulation_dtype) for x in (call.q, call.k))
    mean: Tensor = _PlainHeadMean.apply(q, k, finite(lse), call.scale)  # type: ignore[no-untyped-call]
    return mean


class _PlainHeadMean(torch.autograd.Function):
    """Scale, logsumexp and the base of exp go into the one product; backward computes the weights again."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, lse: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, lse)
        ctx.scale = scale
        mean = q.new_empty((q.shape[0], 1, q.shape[2], k.shape[2]))
        for entry, rows, w in _strips(q, k, lse, scale):
            torch.mean(w, 0, out=mean[entry, 0, rows])
        return mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, lse = ctx.saved_tensors
        with torch.no_grad():
            grad_q, grad_k, grad_lse = torch.empty_like(q), torch.zeros_like(k), torch.empty_like(lse)
            for entry, rows, w in _strips(q, k, lse, ctx.scale):
                # w = exp(s - lse): its derivative in s is w, in lse -w.
                s = w.mul_(grad[entry, :, rows] / q.shape[1])
                grad_lse[entry, :, rows] = -s.sum(-1)
                grad_q[entry, :, rows] = s @ k[entry] * ctx.scale
                grad_k[entry].add_(s.mT @ q[entry, :, rows], alpha=ctx.scale)
        return *refuse_second((grad_q, grad_k, grad_lse), (q, k, lse, grad)), None


def _strips(q: Tensor, k: Tensor, lse: Tensor, scale: float) -> Iterator[tuple[int, slice, Tensor]]:
    """An entry of the batch, rows of it whose weights of all heads fill a tile, and these ``(H, rows, Lk)``."""
    batch, heads, q_len, _ = q.shape
    height = max(TILE // max(heads * k.shape[2], 1), 1)
    base = 1 / math.log(2)
    bias = lse[..., None] * -base
    for entry in range(batch):
        for start in range(0, q_len, height):
            rows = slice(start, min(start + height, q_len))
            s = torch.baddbmm(bias[entry, :, rows], q[entry, :, rows] * (scale * base), k[entry].mT)
            yield entry, rows, s.exp2_()

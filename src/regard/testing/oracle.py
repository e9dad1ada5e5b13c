"""The oracle: attention in float64 as a list of visible pairs, written apart from every backend.

A backend computes a matrix of scores and hides some. The oracle lists the pairs that may attend and computes those
alone, so that whatever is hidden (a NaN, an infinite derivative, a padded key) is not there at all. A sink is one
more pair a row, with value 0. Masks enter through `Mask.allowed` and T5's buckets through `RelativeBias.bucket`,
which have tests of their own; all else is written out here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from regard._coordinates import Coordinates
from regard._errors import ArgumentError
from regard.masks import Mask
from regard.scores import Alibi, Bias, RelativeBias, ScoreMod, ScoreModification, Softcap

_Words = np.ndarray[Any, np.dtype[np.uint32]]


class Pairs(NamedTuple):
    """The visible pairs of a call, one after another; then one pair a row for the sinks, if there are any.

    Attributes:
        row: ``(P,)`` the flattened ``(b, h, i)`` that the pair belongs to.
        score: ``(P,)`` the final score.
        addends: ``(P,)`` the absolute values that were added up to the score.
        share: ``(P,)`` the softmax weight.
        kept: ``(P,)`` the factor of dropout, 0 or ``1/(1-p)``.
        value: ``(P, Dv)`` the value that is read.
    """

    row: Tensor
    score: Tensor
    addends: Tensor
    share: Tensor
    kept: Tensor
    value: Tensor


class Oracle(NamedTuple):
    """What the oracle says, in float64 and differentiable with respect to every operand.

    Attributes:
        out: ``(…, H, Lq, Dv)``.
        lse: ``(…, H, Lq)``, natural log, sinks counted.
        weights: ``(…, H, Lq, Lk)``, before dropout.
        pairs: the same in the form it was computed in.
    """

    out: Tensor
    lse: Tensor
    weights: Tensor
    pairs: Pairs


def oracle(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    score_mod: ScoreModification | Sequence[ScoreModification] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    sinks: Tensor | None = None,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
) -> Oracle:
    """Attention in float64; arguments as in `regard.attention`, and ``seed`` is the seed that dropout drew.

    A row that sees nothing gives out 0, weights 0 and ``lse = -inf`` (``lse = sink[h]`` with sinks).

    Raises:
        ArgumentError: dropout without its seed.

    >>> answer = oracle(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([[0.0], [3.0], [6.0]]))
    >>> answer.out, answer.lse.exp()
    (tensor([[3.]], dtype=torch.float64), tensor([3.0000], dtype=torch.float64))
    """
    if dropout_p > 0 and seed is None:
        raise ArgumentError(
            f"the oracle drops what a seed says: got dropout_p={dropout_p} and no seed. Give call.seed."
        )
    lead = torch.broadcast_shapes(*(x.shape[:-3] for x in (q, k, v)))
    q4, k4, v4 = (_four_dims(x, lead).double() for x in (q, k, v))
    (batch, heads, rows, width), (_, kv_heads, columns, _) = q4.shape, k4.shape
    group = heads // kv_heads
    q_pos = torch.arange(rows) + (columns - rows) if q_positions is None else q_positions
    k_pos = torch.arange(columns) if k_positions is None else k_positions
    q_pos, k_pos = q_pos.expand(batch, rows), k_pos.expand(batch, columns)

    allowed = torch.ones(batch, heads, rows, columns, dtype=torch.bool)
    if mask is not None:
        index = (torch.arange(n) for n in allowed.shape)
        b, h, i, j = (x.reshape([-1 if d == n else 1 for d in range(4)]) for n, x in enumerate(index))
        allowed = mask.allowed(Coordinates(b, h, i, j, q_pos[b, i], k_pos[b, j])).expand(allowed.shape)

    b, h, i, j = allowed.nonzero(as_tuple=True)
    at = Coordinates(b, h, i, j, q_pos[b, i], k_pos[b, j])
    scale = (1 / math.sqrt(width) if width else 1.0) if scale is None else scale
    product = scale * q4[b, h, i] * k4[b, h // group, j]
    score = product.sum(-1)
    for mod in score_mod if isinstance(score_mod, Sequence) else [score_mod] if score_mod is not None else []:
        score = _changed(mod, score, at)
    addends = product.detach().abs().sum(-1) + score.detach().abs()
    row = (b * heads + h) * rows + i
    value = v4[b, h // group, j]
    kept = torch.ones_like(score)
    if dropout_p > 0 and seed is not None:
        kept = keeps(seed, dropout_p, b, h, i, j).double() / (1 - dropout_p)
    visible, total_rows = len(row), batch * heads * rows
    if sinks is not None:
        sink = sinks.double()[None, :, None].expand(batch, heads, rows).reshape(-1)
        row = torch.cat([row, torch.arange(total_rows)])
        score, addends = torch.cat([score, sink]), torch.cat([addends, sink.detach().abs()])
        kept = torch.cat([kept, torch.ones_like(sink)])
        value = torch.cat([value, value.new_zeros(total_rows, value.shape[1])])

    top = torch.full((total_rows,), -math.inf, dtype=torch.float64)
    top = top.scatter_reduce(0, row, score.detach(), "amax")
    top = torch.where(top == -math.inf, 0, top)
    e = torch.exp(score - top[row])
    total = torch.zeros(total_rows, dtype=torch.float64).index_add(0, row, e)
    empty = total == 0
    total = torch.where(empty, 1, total)
    lse = torch.where(empty, -math.inf, top + torch.log(total))
    share = e / total[row]
    out = torch.zeros(total_rows, value.shape[1], dtype=torch.float64)
    out = out.index_add(0, row, (share * kept)[:, None] * value)
    weights = torch.zeros(allowed.shape, dtype=torch.float64).index_put((b, h, i, j), share[:visible])

    shape = (heads, rows) if max(x.ndim for x in (q, k, v)) > 2 else (rows,)
    dims = (*lead, *shape)
    return Oracle(
        out.reshape(*dims, v.shape[-1]),
        lse.reshape(dims),
        weights.reshape(*dims, columns),
        Pairs(row, score, addends, share, kept, value),
    )


def keeps(seed: int, p: float, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Which weights dropout keeps: the contract's hash in numpy's own uint32 arithmetic, bool ``(P,)``."""
    golden = np.uint32(0x9E3779B9)
    words = [np.full(len(i), word, np.uint32) for word in (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)]
    state: _Words = np.zeros(len(i), np.uint32)
    for word in (*words, *(x.numpy().astype(np.uint32) for x in (b, h, i))):
        state = _mix32((state ^ word) + golden)
    drawn = _mix32(state ^ (j.numpy().astype(np.uint32) * golden))
    return torch.from_numpy(drawn >= np.uint32(math.floor(p * 2**32)))


def _mix32(x: _Words) -> _Words:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _four_dims(x: Tensor, lead: torch.Size) -> Tensor:
    x = x[None] if x.ndim == 2 else x
    return x.expand(*lead, *x.shape[-3:]).reshape(math.prod(lead), *x.shape[-3:])


def _changed(mod: ScoreModification, s: Tensor, at: Coordinates) -> Tensor:
    match mod:
        case Softcap(cap=cap):
            return cap * torch.tanh(s / cap)
        case Alibi(slopes=slopes):
            return s - slopes.double()[at.h] * (at.q - at.k).abs()
        case Bias(bias=bias):
            places = zip((at.b, at.h, at.i, at.j)[4 - bias.ndim :], bias.shape, strict=True)
            return s + bias.double()[tuple(x if n > 1 else 0 * x for x, n in places)]
        case RelativeBias(table=table):
            return s + table.double()[mod.bucket(at.k - at.q), at.h]
        case ScoreMod(fn=fn):
            changed = fn(s, at.b, at.h, at.q, at.k)
            assert isinstance(changed, Tensor)
            return changed.double()
    return mod.modify(s, at)

"""Which heads do the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regard._errors import ArgumentError, ShapeError
from regard.head_scores.material import Material


def head_similarity(layers: Sequence[Material], rows: int = 16) -> Tensor:
    """The Jensen-Shannon divergence of every two heads, ``(N, N)`` in nats, ``N`` heads of all layers in order.

    ``JS(p, q) = H((p + q)/2) - (H(p) + H(q))/2`` of their weights, averaged over ``rows`` rows spread evenly over the
    sequence and over the batch (Clark et al. 2019, arXiv:1906.04341). From 0, the same, to ``log 2``. What a learned
    sink takes is one more outcome, so that every row is a distribution. Fast: the chosen rows.

    Raises:
        ShapeError: layers of different lengths.
        ArgumentError: no layers.
    """
    if not layers:
        raise ArgumentError("head_similarity compares heads of at least one layer: got none.")
    sizes = {(one.shape[0], one.shape[2], one.shape[3]) for one in layers}
    if len(sizes) > 1:
        raise ShapeError(f"heads are compared row by row, in layers of the same length: got {sorted(sizes)}.")
    q_len = layers[0].shape[2]
    chosen = torch.linspace(0, q_len - 1, min(rows, q_len), dtype=torch.float64).round().long().unique()
    total, count = None, 0
    for row in chosen.to(layers[0].lse.device):
        p = torch.cat([_distribution(one, row[None]) for one in layers], 1)
        divergence, seen = _divergence(p)
        total = divergence if total is None else total + divergence
        count += seen
    assert total is not None
    return total / count


def _distribution(of: Material, row: Tensor) -> Tensor:
    """Weights and sink share of a row, ``(B, H, Lk + 1)``; all zero for one that sees nothing."""
    weights = of.rows_of(row)[:, :, 0]
    rest = torch.where(of.sees[:, :, row], 1 - weights.sum(-1, keepdim=True), 0).clamp(min=0)
    return torch.cat([weights, rest if of.call.sinks is not None else torch.zeros_like(rest)], -1)


def _divergence(p: Tensor) -> tuple[Tensor, int]:
    """The sum over batch entries of the divergence of every two of ``p (B, N, K)``, and how many entries count."""
    seen = (p.sum(-1) > 0).all(1)
    p = p[seen]
    entropy = _entropy(p)
    found = p.new_zeros((p.shape[1], p.shape[1]))
    for n in range(p.shape[1]):
        mixed = _entropy((p + p[:, n, None]) / 2)
        found[n] = (mixed - (entropy + entropy[:, n, None]) / 2).clamp(min=0).sum(0)
    return found, int(seen.sum())


def _entropy(p: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(p).sum(-1)
    return entropy

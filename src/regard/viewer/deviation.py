"""How far the weights that a page computes from its half floats are from those of the record."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.viewer.chunks import halves
from regard.viewer.subject import Layer, Subject
from regard.weights.part import Selection, finite, part

ROWS = 16
"""Rows of each layer that are compared, spread evenly; every head, every key."""


def deviation(subject: Subject) -> float:
    """The greatest difference of a weight over `ROWS` rows of every head of every layer."""
    return max((_of_layer(layer) for layer in subject.layers if layer.rows and layer.cols), default=0.0)


@torch.no_grad()
def _of_layer(layer: Layer) -> float:
    call, b = layer.call, layer.entry
    rows = torch.linspace(0, layer.rows - 1, min(ROWS, layer.rows), device=call.q.device).round().long().unique()
    places = Selection(slice(b, b + 1), slice(0, call.q.shape[1]), rows, slice(0, layer.cols))
    exact = part(call, layer.lse, places)
    rounded = call.with_(q=_rounded(call.q), k=_rounded(call.k))
    # The lse of the rounded operands, from the exact one and what the rounded weights sum to under it.
    weights = part(rounded, layer.lse, places)
    total = weights.sum(-1, keepdim=True)
    if call.sinks is not None:
        sink = call.sinks.to(total.dtype)[:, None]
        total = total + torch.exp(sink - finite(layer.lse[b][:, rows]))[None, ..., None]
    return float((torch.where(total > 0, weights / total, 0) - exact).abs().max())


def _rounded(x: Tensor) -> Tensor:
    values, scale = halves(x)
    return (torch.from_numpy(values).to(x.device, x.dtype if x.dtype == torch.float64 else torch.float32)) * scale

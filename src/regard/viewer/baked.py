"""Maps for what a browser cannot compute: pooled weights, exact where a bin is one pair."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.viewer.chunks import Array, Chunks
from regard.viewer.subject import Layer
from regard.weights import AttentionWeights

BINS = 512
"""At most as many bins a side."""


def level(rows: int, cols: int, bins: int = BINS) -> int:
    """The zoom level ``z``, at which a bin is ``2**z`` rows and columns, that needs at most ``bins`` a side."""
    z = 0
    while -(-max(rows, cols) >> z) > bins:
        z += 1
    return z


def bake(layer: Layer, chunks: Chunks) -> dict[str, object]:
    """The mass and max map of each head, float16 of ``log2``, at the finest level that `BINS` allows."""
    z = level(layer.rows, layer.cols)
    maps = pooled(AttentionWeights(layer.call, layer.lse), layer.entry, z)
    planes = [[chunks.add(_logarithms(plane[h])) for plane in maps] for h in range(layer.call.q.shape[1])]
    return {"level": z, "planes": planes}


def pooled(weights: AttentionWeights, entry: int, z: int) -> tuple[Tensor, Tensor]:
    """Mass and max maps ``(H, rows, cols)`` whose bins hold ``2**z`` rows and columns, the last ones what is left."""
    call = weights._call
    rows, cols, step = call.q.shape[2], call.k.shape[2], 1 << z
    shape = (call.q.shape[1], -(-rows // step), -(-cols // step))
    mass, largest = (torch.zeros(shape, dtype=torch.float32) for _ in range(2))
    whole = AttentionWeights(call.with_(lead=(call.q.shape[0],)), weights._lse)
    for n in range(shape[1]):
        part = whole[entry, :, n * step : (n + 1) * step].detach().float().cpu()
        padded = torch.nn.functional.pad(part, (0, shape[2] * step - cols))
        bins = padded.unflatten(2, (shape[2], step))
        mass[:, n] = bins.sum(3).mean(1)
        largest[:, n] = bins.amax((1, 3))
    return mass, largest


def _logarithms(plane: Tensor) -> Array:
    made: Array = plane.log2().clamp(min=-60000).to(torch.float16).numpy()
    return made

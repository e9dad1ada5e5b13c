"""Attention followed through layers, without a matrix of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regard._errors import ArgumentError, ShapeError
from regard.head_scores.material import Material
from regard.weights.stream import Reduction, Tile, stream


class _From(Reduction):
    """``Σ_i x_i mean_h w_ij``: ``(B, Lk)``."""

    def __init__(self, of: Material, x: Tensor) -> None:
        self._x = x.to(of.lse.dtype)
        batch, _, _, k_len = of.shape
        self._sum = of.lse.new_zeros((batch, k_len))

    def update(self, tile: Tile) -> None:
        share = self._x[tile.batch, tile.rows] / tile.s.shape[1]
        self._sum[tile.batch, tile.cols] += torch.einsum("bhrc,br->bc", tile.weights, share)

    def finish(self, lse: Tensor) -> Tensor:
        return self._sum


def rollout(layers: Sequence[Material], token: int = -1) -> Tensor:
    """``e_tᵀ Π_l ½ (A_l + I)``: where token ``t`` of the last layer has its information from, ``(B, L)``.

    Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928), from the last layer down, ``A_l`` the mean of a layer's
    heads. One pass a layer and memory O(L): only ``x ↦ ½ (x A + x)`` is ever computed. Sums to 1 without sinks.

    Args:
        layers: in order; each with as many queries as keys.
        token: ``t``.

    Raises:
        ShapeError: a layer whose queries are not all of its keys.
        ArgumentError: no layers, or a token that is not there.
    """
    if not layers:
        raise ArgumentError("rollout follows attention through at least one layer: got none.")
    batch, _, length, _ = layers[-1].shape
    for one in layers:
        if one.crosses or one.shape[2] != one.shape[3] or one.shape[2] != length:
            raise ShapeError(
                f"rollout needs every query of one sequence in every layer: got {one.shape[2]} queries on "
                f"{one.shape[3]} keys. Record without queries=, and leave cross-attention out."
            )
    if not -length <= token < length:
        raise ArgumentError(f"token is one of the {length} tokens: got {token}.")
    x = layers[-1].lse.new_zeros((batch, length))
    x[:, token] = 1
    for one in reversed(layers):
        [came] = stream(one.call, one.lse, [_From(one, x)])
        x = (came + x) / 2
    return x

"""The ``RotaryEmbedding`` operator."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._errors import ArgumentError, ShapeError, got
from regard.adapters._nearest import nearest
from regard.adapters.onnx._heads import split


def rotary_embedding(
    X: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    **attributes: int | None,
) -> Tensor:
    """The ONNX ``RotaryEmbedding`` operator (opset 23; RoPE, Su et al. 2021).

    Pairs of features turn by the angle of their position: ``(a, b) → (a cos - b sin, b cos + a sin)``.

    Args:
        X: ``(B, H, L, D)``, or ``(B, L, H * D)`` with ``num_heads``.
        cos_cache: ``(positions, R / 2)`` with ``position_ids``, else ``(B, L, R / 2)``.
        sin_cache: likewise.
        position_ids: ints ``(B, L)``, rows of the caches.
        attributes: ``interleaved`` (pairs are neighbours instead of halves apart), ``num_heads``, and
            ``rotary_embedding_dim`` R, the features that turn; 0 = all.

    Returns:
        A tensor like X.

    Raises:
        ArgumentError: unknown attribute.
        ShapeError: wrong ranks, caches of another width.
    """
    known = ("interleaved", "num_heads", "rotary_embedding_dim")
    for name in attributes:
        if name not in known:
            raise ArgumentError(
                f"RotaryEmbedding has the attributes {', '.join(known)}: got {name!r}.{nearest(name, known)}"
            )
    if X.ndim not in (3, 4):
        raise ShapeError(f"X must be (B, H, L, D) or (B, L, H * D): {got({'X': X})}.")
    packed = X.ndim == 3
    x = split("X", X, attributes.get("num_heads"), "num_heads") if packed else X
    width = attributes.get("rotary_embedding_dim") or x.shape[-1]
    if width % 2 or not 0 < width <= x.shape[-1]:
        raise ShapeError(f"an even number of features turns, at most {x.shape[-1]}: got rotary_embedding_dim={width}.")
    caches = {"cos_cache": cos_cache, "sin_cache": sin_cache}
    rank = 3 if position_ids is None else 2
    for name, cache in caches.items():
        if cache.ndim != rank or cache.shape[-1] != width // 2:
            shape = "(B, L, " if position_ids is None else "(positions, "
            raise ShapeError(f"{name} must be {shape}{width // 2}), half of the features that turn: {got(caches)}.")
    if position_ids is not None:
        cos_cache, sin_cache = cos_cache[position_ids], sin_cache[position_ids]
    cos, sin = cos_cache[:, None], sin_cache[:, None]
    turned, rest = x[..., :width], x[..., width:]
    if attributes.get("interleaved"):
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
    else:
        a, b = turned.chunk(2, -1)
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    y = torch.cat([turned, rest], -1)
    return y.transpose(1, 2).flatten(2) if packed else y

"""`torch.nn.functional.scaled_dot_product_attention`, the same signature and the same meaning, computed by regard.

What is converted: ``is_causal`` is aligned at the *top left*, so that query ``i`` sees the keys ``0 … i`` even where
there are more keys than queries (`regard.Causal` by itself aligns the last query with the last key). A bool
``attn_mask`` says True = may attend, as regard does; a float one is added to the scores. Heads of keys and values
broadcast like any leading dim, and only with ``enable_gqa`` serve a group of query heads.

What differs from torch, on purpose:

* A query that may attend to nothing gives 0 and has gradient 0 on every backend.
* ``dropout_p`` drops the weights that `regard.attention` drops under the same seed, not those of torch's kernels, and
  must be below 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regard._attention import attention
from regard._errors import ArgumentError, KindError, ShapeError, describe, got
from regard.masks import Causal, Dense, Mask
from regard.scores import Bias


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001  (torch's signature)
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001
) -> Tensor:
    """``softmax(scale · query keyᵀ + attn_mask) · value``, as torch's function of this name means it.

    Args:
        query: ``(…, H, L, E)``.
        key: ``(…, H, S, E)``; with ``enable_gqa`` of fewer heads, a divisor of H.
        value: ``(…, H, S, Ev)``, likewise. Leading dims broadcast.
        attn_mask: broadcastable to ``(…, H, L, S)``: bool, True = may attend, or float, added to the scores; a float
            mask that requires a gradient gets one.
        dropout_p: probability of dropping a weight; applied whenever it is above 0, in training or not.
        is_causal: whether query ``i`` sees the keys ``0 … i`` only; not together with ``attn_mask``.
        scale: factor of the dot products; default ``1/√E``.
        enable_gqa: whether query head ``h`` reads key/value head ``h // (H // Hkv)``.

    Returns:
        ``(…, H, L, Ev)``; 0 for a query that may attend to nothing.

    Raises:
        ArgumentError: ``is_causal`` together with ``attn_mask``, a dropout outside [0, 1).
        ShapeError: sizes that do not fit, heads that differ without ``enable_gqa``.
        KindError: a mask that is neither bool nor float, dtypes that differ.

    >>> query, key, value = torch.randn(3, 1, 4, 10, 8).unbind()
    >>> scaled_dot_product_attention(query, key, value, is_causal=True).shape
    torch.Size([1, 4, 10, 8])
    """
    operands = {"query": query, "key": key, "value": value}
    for name, x in operands.items():
        if not isinstance(x, Tensor):
            raise KindError(f"{name} must be a tensor: got {describe(x)}.")
        if x.ndim < 2:
            raise ShapeError(f"{name} must be (…, tokens, features): {got(operands)}.")
    if is_causal and attn_mask is not None:
        raise ArgumentError(
            "is_causal=True is a mask of its own and goes without attn_mask, as in torch: got both. Give attn_mask & "
            "torch.ones(L, S, dtype=torch.bool).tril(), or combine masks in regard.attention(mask=Causal() & …)."
        )
    query, key, value = _with_equal_heads(query, key, value, grouped=enable_gqa)
    mask: Mask | None = None
    bias: Bias | None = None
    positions = None
    if attn_mask is not None:
        flat = _flattened(attn_mask, query, key, value)
        if attn_mask.dtype == torch.bool:
            mask = Dense(flat)
        elif attn_mask.is_floating_point():
            bias = Bias(flat)
        else:
            raise KindError(
                f"attn_mask is bool, True = may attend, or float, added to the scores: got {describe(attn_mask)}. "
                "Convert a 0/1 mask with .bool()."
            )
    elif is_causal:
        mask = Causal()
        if query.shape[-2] != key.shape[-2]:
            positions = torch.arange(query.shape[-2], device=query.device)
    return attention(
        query, key, value, mask=mask, score_mod=bias, scale=scale, dropout_p=dropout_p, q_positions=positions
    )


def _with_equal_heads(query: Tensor, key: Tensor, value: Tensor, *, grouped: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The operands with the heads that regard reads as torch reads these: broadcast, or in groups."""
    operands = {"query": query, "key": key, "value": value}
    heads = {name: x.shape[-3] if x.ndim > 2 else 1 for name, x in operands.items()}
    most = max(heads.values())
    if not grouped:
        if any(n not in (1, most) for n in heads.values()):
            raise ShapeError(
                "without enable_gqa=True, query, key and value have as many heads as one another, or 1: "
                f"{got(operands)}."
            )
        if len(set(heads.values())) == 1:
            return query, key, value
        query, key, value = (x if x.ndim > 2 else x[None] for x in (query, key, value))
        # One key/value head for all is what regard reads as a group; one query head is repeated.
        query = query.expand(*query.shape[:-3], most, *query.shape[-2:])
    if key.ndim == value.ndim == 2 or heads["key"] == heads["value"]:
        return query, key, value
    key, value = (x if x.ndim > 2 else x[None] for x in (key, value))
    if any(n == 0 or heads["query"] % n for n in (heads["key"], heads["value"])) and grouped:
        raise ShapeError(f"with enable_gqa=True, the heads of key and of value divide those of query: {got(operands)}.")
    key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    return query, key, value


def _flattened(attn_mask: Tensor, *operands: Tensor) -> Tensor:
    """The mask with the dims before heads flattened to one, as regard flattens those of the operands."""
    if attn_mask.ndim <= 3 or max(x.ndim for x in operands) <= 4:
        return attn_mask
    try:
        lead = torch.broadcast_shapes(*(x.shape[:-3] for x in operands))
        expanded = attn_mask.expand(*lead, *attn_mask.shape[-3:])
    except RuntimeError:
        shapes = ", ".join(str(tuple(x.shape)) for x in operands)
        raise ShapeError(
            f"the dims before heads broadcast, and attn_mask with them: got attn_mask {describe(attn_mask)} beside "
            f"{shapes}."
        ) from None
    return expanded.reshape(-1, *attn_mask.shape[-3:])

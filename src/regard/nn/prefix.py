"""How a layer goes on from the tokens in its cache."""

from __future__ import annotations

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, UnsupportedError, describe
from regard.cache import Cache
from regard.cache.reach import check_reach
from regard.masks import Mask
from regard.nn.rotary import RotaryEmbedding


def check_cache(cache: object, context: Tensor | None) -> None:
    """Raise unless ``cache`` is a cache that this call can go on from.

    Raises:
        KindError: no cache.
        ArgumentError: a cache beside ``context``.
    """
    if cache is None:
        return
    if not isinstance(cache, Cache):
        raise KindError(f"cache takes one of regard.cache, such as FullCache(): got {describe(cache)}.")
    if context is not None:
        raise ArgumentError(
            "a cache holds the past of x itself, and context= is another sequence: give one of the two. Its keys and "
            "values are the same in each step anyway."
        )


def turn(
    rope: RotaryEmbedding, q: Tensor, k: Tensor, positions: Tensor | None, cache: Cache | None
) -> tuple[Tensor, Tensor]:
    """``q`` and ``k`` turned by ``positions``, by default the running index from the end of the cache on.

    Raises:
        UnsupportedError: frequencies that follow the length of the sequence, while a cache holds turned keys.
    """
    past = 0 if cache is None else cache.length
    turned: tuple[Tensor, Tensor] = rope.turn_run(q, k, past) if positions is None else rope(q, k, positions)
    limit = None if cache is None or rope.scaling is None else rope.scaling.trained_length
    if limit is None or not q.shape[-2]:
        return turned
    last = past + q.shape[-2] - 1 if positions is None else int(positions.max())
    if last >= limit:
        reason = f"{rope.scaling!r} turns all keys anew when a sequence grows beyond {limit} tokens"
        raise UnsupportedError(
            f"a cache keeps keys that have been turned, and {reason}: got a token at position {last}. "
            "Give the whole sequence without a cache, or use YaRN.",
            [reason],
        )
    return turned


def join(
    cache: Cache, k: Tensor, v: Tensor, mask: Mask, heads: int
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Append to the cache: the keys and values to attend to, and the positions of queries and keys if not the default.

    Raises:
        ArgumentError: a mask that needs keys which the cache has dropped; the cache is as before then.
    """
    new = k.shape[-2]
    batch = k.shape[:-3].numel()
    check_reach(mask, cache, new, batch=batch, heads=heads, device=k.device)
    keys, values, k_positions = cache.append(k, v)
    if k_positions.shape[0] == cache.length:
        # Nothing was dropped, so these are the default positions, which backends know best.
        return keys, values, None, None
    q_positions = torch.arange(cache.length - new, cache.length, device=k.device)
    return keys, values, q_positions, k_positions

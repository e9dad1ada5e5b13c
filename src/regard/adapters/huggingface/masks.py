"""The masks of transformers, read back into values: windows, padding and packing stay intervals.

transformers describes a mask as a function of four indexes, put together from a handful of factories
(`transformers.masking_utils`). What each factory was called with is read from its closure; a function that is none of
them is evaluated, and becomes `Dense`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from regard.masks import Causal, Chunked, Dense, Document, Everything, Mask, Padding, SlidingWindow

MaskFunction = Callable[..., Any]
"""``fn(batch, head, query, key) -> bool`` of transformers, on absolute indexes."""


@dataclass(frozen=True)
class Geometry:
    """Where the queries and the keys of a mask stand.

    Attributes:
        batch: sequences.
        q_len: queries.
        k_len: keys, written or not: a static cache has room for more.
        q_offset: absolute index of the first query.
        k_offset: absolute index of the first key; not 0 once a sliding cache has dropped keys.
        device: of the tokens.
        documents: ``(B, q_len)``, the sequence that each token belongs to, while reading packed sequences.
        positions: ``(B, q_len)``, each token's position in its own sequence, while reading packed sequences.
    """

    batch: int
    q_len: int
    k_len: int
    q_offset: int
    k_offset: int
    device: torch.device
    documents: Tensor | None = None
    positions: Tensor | None = None

    @property
    def first_query(self) -> int:
        """Where the first query stands if the first key stands at 0, which is how the masks below count."""
        return self.q_offset - self.k_offset

    @property
    def span(self) -> int:
        """One more than the largest position of a query or a key."""
        return max(self.k_len, self.first_query + self.q_len)


def read(function: MaskFunction, at: Geometry, evaluate: Callable[[MaskFunction], Tensor]) -> Mask:
    """``function`` as a mask whose keys stand at ``0 … k_len - 1``.

    Args:
        function: of transformers, or anyone's.
        at: sizes and offsets.
        evaluate: gives the bool tensor ``(B, 1, q_len, k_len)`` of a function that cannot be read.
    """
    from transformers import masking_utils

    if function is masking_utils.causal_mask_function:
        return Causal()
    if function is masking_utils.bidirectional_mask_function:
        return Everything()
    name = function.__qualname__ if getattr(function, "__module__", None) == masking_utils.__name__ else ""
    held = _held(function)
    match name.split(".<locals>.")[0]:
        case "and_masks":
            return _both(held["mask_functions"], at, evaluate)
        case "or_masks":
            return reduce(Mask.__or__, (read(part, at, evaluate) for part in held["mask_functions"]))
        case "sliding_window_overlay":
            width = held["sliding_window"]
            return SlidingWindow(width - 1, None) if width > 0 else ~SlidingWindow(None, -width)
        case "sliding_window_bidirectional_overlay":
            return SlidingWindow(held["sliding_window"], held["sliding_window"])
        case "chunked_overlay":
            return _chunked(held["chunk_size"], held["left_padding"], at)
        case "blockwise_overlay":
            return _blocks(held["block_sequence_ids"], at)
        case "padding_mask_function":
            return padding(held["padding_mask"], at)
        case "packed_sequence_mask_function":
            return Document(held["packed_sequence_mask"])
        case "remap_positions_for_packed_sequence" if at.documents is not None:
            return read(held["mask_function"], replace(at, positions=held["position_ids"]), evaluate)
    return Dense(evaluate(function))


def q_positions(mask: Mask, at: Geometry) -> Tensor | None:
    """Positions of the queries, None where the default will do: the last query at the last key."""
    if at.first_query + at.q_len == at.k_len and (at.q_len == at.k_len or not _has_own_key_ids(mask)):
        return None
    return torch.arange(at.first_query, at.first_query + at.q_len, device=at.device)


def _has_own_key_ids(mask: Mask) -> bool:
    """Whether `Document` will want to be told where the queries stand."""
    if isinstance(mask, Document):
        return mask.k_ids is not None
    return any(_has_own_key_ids(part) for part in getattr(mask, "parts", ()))


def padding(valid: Tensor | None, at: Geometry) -> Mask:
    """The keys that are tokens: ``valid`` bool ``(B, n)`` by absolute index; keys that it does not reach are hidden."""
    if valid is None:
        return Everything()
    valid = valid[:, at.k_offset : at.k_offset + at.k_len]
    if valid.shape[1] < at.k_len:
        valid = torch.nn.functional.pad(valid, (0, at.k_len - valid.shape[1]))
    return Everything() if bool(valid.all()) else Padding.from_valid(valid)


def _held(function: MaskFunction) -> dict[str, Any]:
    """What a closure closes over, by name."""
    cells = getattr(function, "__closure__", None) or ()
    names = function.__code__.co_freevars if cells else ()
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True)}


def _both(parts: tuple[MaskFunction, ...], at: Geometry, evaluate: Callable[[MaskFunction], Tensor]) -> Mask:
    packed = next((p for p in parts if p.__qualname__.startswith("packed_sequence_mask_function.")), None)
    if packed is not None:
        at = replace(at, documents=_held(packed)["packed_sequence_mask"])
    return reduce(Mask.__and__, (read(part, at, evaluate) for part in parts))


def _chunked(size: int, left_padding: Tensor, at: Geometry) -> Mask:
    """Chunks that begin with each sequence's first token, whichever side it is padded on."""
    if at.documents is not None and at.positions is not None:
        # Within a packed sequence, chunks count from its own first token: a chunk is a document of its own.
        chunk = at.positions // size
        return Document(at.documents * (int(chunk.max()) + 1) + chunk)
    if at.k_offset % size == 0 and not bool(left_padding.any()):
        return Chunked(size)
    absolute = torch.arange(at.k_offset, at.k_offset + at.span, device=at.device)
    return Document(torch.div(absolute - left_padding[:, None], size, rounding_mode="floor"))


def _blocks(ids: Tensor, at: Geometry) -> Mask:
    """Tokens of the same block, which is none if its id is negative."""
    ids = ids[:, at.k_offset :].to(torch.int64)
    # A key outside all blocks gets an id that no other token has, so that blocks stay runs of tokens.
    alone = -_FAR - torch.arange(ids.shape[1], device=ids.device)
    return Document(ids, torch.where(ids < 0, alone, ids))


_FAR = 1 << 40

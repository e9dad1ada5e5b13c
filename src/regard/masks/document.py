"""Packed documents: several texts in one sequence that do not see each other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Self

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard.masks.base import Mask, check_batch, check_device, summary
from regard.masks.blocks import Coverage
from regard.masks.intervals import RowIntervals, position_range

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_PRESENCE_IDS = 4096


class Document(Mask):
    """A query sees the keys of its own document: ``ids[q] == ids[k]``.

    Ids go by *position*, so that a cache or a reordering needs no other ids; a position outside ``ids`` is in no
    document and neither sees nor is seen. Ids may come in any order; contiguous documents have an interval form.

    Args:
        ids: integer tensor ``(L,)`` or ``(B, L)``, the document at each position.
        k_ids: the same for the keys, for cross-attention; default: ``ids``. Queries and keys of different numbers need
            explicit ``q_positions`` then.

    Raises:
        KindError: ids that are no integer tensor.
        ShapeError: ids of another rank, or too few for the call.

    >>> print(Document(torch.tensor([0, 0, 1, 1, 1])).show(5, 5))
        0 1 2 3 4
    0   ■ ■ · · ·
    1   ■ ■ · · ·
    2   · · ■ ■ ■
    3   · · ■ ■ ■
    4   · · ■ ■ ■
    """

    def __init__(self, ids: Tensor, k_ids: Tensor | None = None) -> None:
        self.ids = _checked_ids("ids", ids)
        self.k_ids = None if k_ids is None else _checked_ids("k_ids", k_ids)

    @staticmethod
    def from_lengths(lengths: Sequence[int] | Tensor) -> Document:
        """Documents of these lengths, one behind the other.

        >>> Document.from_lengths([2, 3]).ids
        tensor([0, 0, 1, 1, 1])
        """
        counts = torch.as_tensor(lengths)
        counts = counts if counts.numel() else counts.to(torch.int64)
        if counts.ndim != 1 or counts.dtype not in _INTEGERS or bool((counts < 0).any()):
            raise ArgumentError(f"from_lengths takes non-negative ints, one per document: got {describe(lengths)}.")
        return Document(torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts))

    @staticmethod
    def from_cu_seqlens(cu_seqlens: Tensor) -> Document:
        """Documents from cumulative lengths ``[0, n1, n1 + n2, …]``, as variable-length kernels take them."""
        if not isinstance(cu_seqlens, Tensor) or cu_seqlens.ndim != 1 or cu_seqlens.dtype not in _INTEGERS:
            raise KindError(f"from_cu_seqlens takes a 1-D integer tensor: got {describe(cu_seqlens)}.")
        if len(cu_seqlens) == 0 or int(cu_seqlens[0]) != 0:
            raise ArgumentError(f"cumulative lengths start with 0: got {cu_seqlens.tolist()}.")
        lengths = cu_seqlens.diff()
        if bool((lengths < 0).any()):
            raise ArgumentError(f"cumulative lengths never decrease: got {cu_seqlens.tolist()}.")
        return Document.from_lengths(lengths)

    def allowed(self, at: Coordinates) -> Tensor:
        q_id, q_inside = _look_up(self.ids, at.b, at.q)
        k_id, k_inside = _look_up(self._key_ids, at.b, at.k)
        return (q_id == k_id) & q_inside & k_inside

    def intervals(self, frame: Frame) -> RowIntervals | None:
        spans = _spans(self._key_ids)
        if spans is None:
            return None
        ids, start, stop = spans
        batch = max(frame.q_pos.shape[0], self.batch)
        b = torch.arange(batch, device=frame.device)[:, None]
        wanted, inside = _look_up(self.ids, b, frame.q_pos)
        wanted = wanted.expand(batch, -1).contiguous()
        slot = torch.searchsorted(ids.expand(batch, -1).contiguous(), wanted)
        slot = slot.clamp(max=ids.shape[1] - 1) if ids.shape[1] else slot
        if not ids.shape[1]:
            return position_range(frame, 0, 0)
        found = (ids.expand(batch, -1).gather(1, slot) == wanted) & inside
        low = torch.where(found, start.expand(batch, -1).gather(1, slot), 0)
        high = torch.where(found, stop.expand(batch, -1).gather(1, slot), 0)
        return position_range(frame, low, high)

    def grid(self, frame: Frame, block: tuple[int, int]) -> Tensor:
        if self.intervals(frame) is not None:
            return super().grid(frame, block)
        # Two blocks meet where they share an id, and are one document where both hold a single, equal id.
        batch = max(frame.q_pos.shape[0], frame.k_pos.shape[0], self.batch)
        b = torch.arange(batch, device=frame.device)[:, None]
        q_id, q_inside = _look_up(self.ids, b, frame.q_pos)
        k_id, k_inside = _look_up(self._key_ids, b, frame.k_pos)
        q_id, k_id = q_id.expand(batch, -1), k_id.expand(batch, -1)
        names = torch.cat([q_id.flatten(), k_id.flatten()]).unique()
        shape = (batch, -(-frame.q_len // block[0]), -(-frame.k_len // block[1]))
        meets = torch.zeros(shape, dtype=torch.bool, device=frame.device)
        for chunk in names.split(_PRESENCE_IDS):
            q_has = _presence(q_id, q_inside, chunk, block[0])
            k_has = _presence(k_id, k_inside, chunk, block[1])
            meets |= (q_has @ k_has.mT) > 0
        q_low, q_high = _extremes(q_id, q_inside, block[0])
        k_low, k_high = _extremes(k_id, k_inside, block[1])
        single = (q_low == q_high)[:, :, None] & (k_low == k_high)[:, None]
        one = meets & single & (q_low[:, :, None] == k_low[:, None])
        return (meets.to(torch.uint8) * int(Coverage.PARTIAL) + one.to(torch.uint8))[:, None]

    def check(self, frame: Frame) -> None:
        for name, ids in (("ids", self.ids), ("k_ids", self.k_ids)):
            if ids is None:
                continue
            check_device(f"Document's {name}", ids, frame)
            check_batch(f"Document's {name}", ids.shape[0] if ids.ndim == 2 else 1, frame)
        if not frame.by_default:
            return
        shortest = min(x.shape[-1] for x in (self.ids, self._key_ids))
        if self.k_ids is not None and frame.q_len != frame.k_len:
            raise ShapeError(
                f"Document goes by position, and {frame.q_len} queries over {frame.k_len} keys stand at positions "
                f"{frame.k_len - frame.q_len} … {frame.k_len - 1} by default. For cross-attention give positions: "
                "q_positions=torch.arange(q_len)."
            )
        if shortest < frame.k_len:
            raise ShapeError(
                f"Document needs an id for each of the {frame.k_len} positions of the call: got ids of length "
                f"{shortest}. Give the ids of the whole sequence, or q_positions and k_positions."
            )

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.ids,) if self.k_ids is None else (self.ids, self.k_ids)

    @property
    def batch(self) -> int:
        return max(ids.shape[0] if ids.ndim == 2 else 1 for ids in self.tensors())

    @property
    def extent(self) -> tuple[int | None, int | None]:
        return self.ids.shape[-1], self._key_ids.shape[-1]

    @property
    def _key_ids(self) -> Tensor:
        return self.ids if self.k_ids is None else self.k_ids

    def _key(self) -> Hashable:
        return ("Document", len(self.tensors()))

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        return type(self)(*tensors)

    def __repr__(self) -> str:
        return f"Document({', '.join(summary(t) for t in self.tensors())})"


def _checked_ids(name: str, ids: object) -> Tensor:
    if not isinstance(ids, Tensor) or ids.dtype not in _INTEGERS:
        raise KindError(f"Document's {name} must be an integer tensor: got {describe(ids)}.")
    if ids.ndim not in (1, 2):
        raise ShapeError(f"Document's {name} must be (L,) or (B, L): got {tuple(ids.shape)}.")
    return ids


def _look_up(ids: Tensor, b: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """The id at each position, and whether the position has one."""
    length = ids.shape[-1]
    inside = (position >= 0) & (position < length)
    if length == 0:
        return torch.zeros_like(position), inside
    place = position.clamp(0, length - 1)
    if ids.ndim == 1:
        return ids[place].to(torch.int64), inside
    if ids.shape[0] == 1:
        return ids[0][place].to(torch.int64), inside
    return ids[b, place].to(torch.int64), inside


def _spans(ids: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Sorted ids ``(B, n)`` with the first and last position + 1 of each; None when a document is in several pieces."""
    table = (ids if ids.ndim == 2 else ids[None]).to(torch.int64)
    batch, length = table.shape
    if length == 0:
        return table, table, table
    opens = torch.ones_like(table, dtype=torch.bool)
    opens[:, 1:] = table[:, 1:] != table[:, :-1]
    counts = opens.sum(1)
    n = int(counts.amax()) if batch else 0
    # Unused slots repeat the last document, so that every row stays sorted and the look-up stays true.
    piece = opens.cumsum(1) - 1
    start = torch.full((batch, n), length, dtype=torch.int64, device=ids.device)
    entry, place = opens.nonzero(as_tuple=True)
    start[entry, piece[entry, place]] = place
    stop = torch.cat([start[:, 1:], torch.full_like(start[:, :1], length)], 1)
    used = torch.arange(n, device=ids.device) < counts[:, None]
    names = table.gather(1, start.clamp(max=length - 1))
    names = torch.where(used, names, names.amax(1, keepdim=True))
    last = names.argmax(1, keepdim=True)
    start = torch.where(used, start, start.gather(1, last))
    stop = torch.where(used, stop, stop.gather(1, last))
    names, order = names.sort(dim=1, stable=True)
    start, stop, used = (x.gather(1, order) for x in (start, stop, used))
    torn = (names[:, 1:] == names[:, :-1]) & used[:, 1:] & used[:, :-1]
    return None if bool(torn.any()) else (names, start, stop)


def _presence(ids: Tensor, inside: Tensor, names: Tensor, block: int) -> Tensor:
    """1.0 where a block holds an id: ``(B, blocks, len(names))``."""
    batch, length = ids.shape
    slot = torch.searchsorted(names, ids.contiguous()).clamp(max=len(names) - 1)
    here = (names[slot] == ids) & inside
    n_blocks = -(-length // block)
    held = torch.zeros((batch, n_blocks * len(names)), device=ids.device)
    row = torch.arange(length, device=ids.device) // block
    held.scatter_add_(1, row * len(names) + slot, here.to(held.dtype))
    return held.clamp_(max=1).view(batch, n_blocks, len(names))


def _extremes(ids: Tensor, inside: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Least and greatest id of each block; a position outside every document makes them differ."""
    limits = torch.iinfo(torch.int64)
    n_blocks = -(-ids.shape[1] // block)
    # A ragged last block repeats its last position, which changes neither extreme.
    place = torch.arange(n_blocks * block, device=ids.device).clamp(max=ids.shape[1] - 1)
    low = torch.where(inside, ids, limits.min).expand(ids.shape)[:, place]
    high = torch.where(inside, ids, limits.max).expand(ids.shape)[:, place]
    return low.unflatten(1, (n_blocks, block)).amin(-1), high.unflatten(1, (n_blocks, block)).amax(-1)

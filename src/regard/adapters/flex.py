"""FlexAttention's ``mask_mod``, ``score_mod`` and ``BlockMask`` as regard's masks and score changes, and back.

What is converted: FlexAttention's functions get *rows and columns*, counted from 0 on both sides, so that its causal
mask ``q_idx >= kv_idx`` is aligned at the top left; regard's masks go by *positions*, by default with the last query
at the last key. What comes from FlexAttention keeps its rows and columns; what goes there has the positions built in.
True = may attend on both sides.

FlexAttention calls a function score by score; regard calls it on tensors that broadcast. Comparisons, arithmetic and
look-ups such as ``ids[q_idx] == ids[kv_idx]`` are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from regard._call import checked_mask, checked_score_mods
from regard._coordinates import Coordinates, Frame
from regard._errors import KindError, ShapeError, describe
from regard.backends import flex as _backend
from regard.masks import Mask
from regard.masks.base import check_batch, check_device
from regard.scores import ScoreMod, ScoreModification

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreModFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def from_mask_mod(mask_mod: MaskMod) -> Mask:
    """The mask that sees what ``mask_mod(b, h, q_idx, kv_idx)`` allows, by row and column.

    Raises:
        KindError: no function, or one that returns no bool tensor.

    >>> print(from_mask_mod(lambda b, h, q_idx, kv_idx: q_idx >= kv_idx).show(2, 4))
        0 1 2 3
    2   ■ · · ·
    3   ■ ■ · ·
    """
    if not callable(mask_mod):
        raise KindError(f"from_mask_mod takes a function fn(b, h, q_idx, kv_idx) -> bool: got {describe(mask_mod)}.")
    return _MaskMod(mask_mod)


def from_block_mask(block_mask: BlockMask) -> Mask:
    """The mask that sees what ``block_mask`` lets FlexAttention see.

    That is every pair of its full blocks, and of its partial blocks what its ``mask_mod`` allows.

    Raises:
        KindError: no BlockMask.
    """
    from torch.nn.attention.flex_attention import BlockMask

    if not isinstance(block_mask, BlockMask):
        raise KindError(f"from_block_mask takes a BlockMask: got {describe(block_mask)}.")
    partial = _grid(block_mask.kv_num_blocks, block_mask.kv_indices)
    if block_mask.full_kv_num_blocks is None or block_mask.full_kv_indices is None:
        full = torch.zeros_like(partial)
    else:
        full = _grid(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)
    block_q, block_k = block_mask.BLOCK_SIZE
    q_len, k_len = block_mask.seq_lengths
    return _Blocks(partial, full, block_mask.mask_mod, (block_q, block_k), (q_len, k_len))


def from_score_mod(score_mod: ScoreModFunction) -> ScoreModification:
    """The score change ``score_mod(score, b, h, q_idx, kv_idx)``, by row and column; its tensors get gradients.

    Raises:
        KindError: no function, or one that returns no float tensor.
    """
    return _ScoreModFunction(score_mod)


def to_mask_mod(
    mask: Mask,
    q_len: int,
    k_len: int,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    *,
    batch: int | None = None,
    heads: int | None = None,
    device: torch.device | str | None = None,
) -> MaskMod:
    """``mask`` of a call of this size as FlexAttention's ``mask_mod``; arguments as in `Mask.dense`.

    Args:
        mask: what may attend.
        q_len: number of queries.
        k_len: number of keys.
        q_positions: int64 ``(q_len,)`` or ``(B, q_len)``.
        k_positions: int64 ``(k_len,)`` or ``(B, k_len)``.
        batch: batch entries; default: as many as the mask's tensors or the positions have.
        heads: query heads; default: as many as the mask's tensors have.
        device: where the call runs; default: that of the mask's tensors, or the CPU.

    Raises:
        KindError: no mask.
        ShapeError: a mask that does not fit the call.
    """
    frame = _frame(mask, q_len, k_len, q_positions, k_positions, batch, heads, device)
    return _backend.mask_mod(mask, frame)


def to_block_mask(
    mask: Mask,
    q_len: int,
    k_len: int,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    *,
    batch: int | None = None,
    heads: int | None = None,
    device: torch.device | str | None = None,
) -> BlockMask:
    """``mask`` of a call of this size as FlexAttention's ``BlockMask`` in blocks of 128; arguments as in `to_mask_mod`.

    Its blocks come from the mask's closed form where it has one, without a tensor of ``q_len * k_len``.

    Raises:
        KindError: no mask.
        ShapeError: a mask that does not fit the call.
    """
    return _backend.block_mask(mask, _frame(mask, q_len, k_len, q_positions, k_positions, batch, heads, device))


def to_score_mod(
    score_mod: ScoreModification | Sequence[ScoreModification],
    q_len: int,
    k_len: int,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    *,
    batch: int = 1,
    heads: int = 1,
    device: torch.device | str = "cpu",
) -> ScoreModFunction:
    """One score change or several of a call of this size as FlexAttention's ``score_mod``.

    Args:
        score_mod: applied in order.
        q_len: number of queries.
        k_len: number of keys.
        q_positions: int64 ``(q_len,)`` or ``(B, q_len)``.
        k_positions: int64 ``(k_len,)`` or ``(B, k_len)``.
        batch: batch entries of the call.
        heads: query heads of the call.
        device: where the call runs.

    Raises:
        KindError: no score change.
        ShapeError: one that does not fit the call.
    """
    mods = checked_score_mods(score_mod)
    frame = Frame.of(batch, heads, q_len, k_len, q_positions, k_positions, device)
    for mod in mods:
        mod.check(frame)
    return _backend.score_mod(mods, frame)


def _frame(
    mask: Mask,
    q_len: int,
    k_len: int,
    q_positions: Tensor | None,
    k_positions: Tensor | None,
    batch: int | None,
    heads: int | None,
    device: torch.device | str | None,
) -> Frame:
    frame = checked_mask(mask).frame(q_len, k_len, q_positions, k_positions, batch=batch, heads=heads)
    if device is not None:
        frame = Frame.of(frame.batch, frame.heads, q_len, k_len, q_positions, k_positions, device)
    mask.check(frame)
    return frame


def _grid(num_blocks: Tensor, indices: Tensor) -> Tensor:
    """Which columns of blocks each row of blocks lists, bool ``(B, H, rows, columns)``: its first ``num_blocks``."""
    columns = indices.shape[-1]
    listed = torch.arange(columns, device=indices.device) < num_blocks[..., None]
    grid = torch.zeros((*indices.shape[:-1], columns + 1), dtype=torch.bool, device=indices.device)
    # What is not listed goes to one column too many.
    return grid.scatter(-1, torch.where(listed, indices, columns).long(), value=True)[..., :columns]


class _MaskMod(Mask):
    """A function of rows and columns. Made by `from_mask_mod`."""

    def __init__(self, mask_mod: MaskMod) -> None:
        self.mask_mod = mask_mod

    def allowed(self, at: Coordinates) -> Tensor:
        allowed = self.mask_mod(at.b, at.h, at.i, at.j)
        if not isinstance(allowed, Tensor) or allowed.dtype != torch.bool:
            raise KindError(f"a mask_mod must return a bool tensor, True = may attend: got {describe(allowed)}.")
        return allowed

    def _key(self) -> Hashable:
        return ("mask_mod", self.mask_mod)

    def __repr__(self) -> str:
        return f"from_mask_mod({getattr(self.mask_mod, '__qualname__', self.mask_mod)})"


class _Blocks(Mask):
    """Full blocks, and partial blocks with a function of rows and columns. Made by `from_block_mask`."""

    def __init__(
        self, partial: Tensor, full: Tensor, mask_mod: MaskMod, block: tuple[int, int], lengths: tuple[int, int]
    ) -> None:
        self.partial = partial
        self.full = full
        self.mask_mod = mask_mod
        self.block = block
        self.lengths = lengths

    def allowed(self, at: Coordinates) -> Tensor:
        b = at.b if self.batch > 1 else torch.zeros_like(at.b)
        h = at.h if self.heads > 1 else torch.zeros_like(at.h)
        where = (b, h, at.i // self.block[0], at.j // self.block[1])
        return self.full[where] | (self.partial[where] & self.mask_mod(at.b, at.h, at.i, at.j))

    def check(self, frame: Frame) -> None:
        check_device("from_block_mask's blocks", self.partial, frame)
        check_batch("from_block_mask's BlockMask", self.batch, frame)
        if self.heads not in (1, frame.heads) or self.lengths != (frame.q_len, frame.k_len):
            raise ShapeError(
                f"from_block_mask's BlockMask is written for {self.heads} heads, {self.lengths[0]} queries and "
                f"{self.lengths[1]} keys, but the call has {frame.heads}, {frame.q_len} and {frame.k_len}."
            )

    def tensors(self) -> tuple[Tensor, ...]:
        return self.partial, self.full

    @property
    def batch(self) -> int:
        return self.partial.shape[0]

    @property
    def heads(self) -> int:
        return self.partial.shape[1]

    @property
    def extent(self) -> tuple[int | None, int | None]:
        return self.lengths

    def _key(self) -> Hashable:
        return ("BlockMask", self.mask_mod, self.block, self.lengths)

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        partial, full = tensors
        return type(self)(partial, full, self.mask_mod, self.block, self.lengths)

    def __repr__(self) -> str:
        return f"from_block_mask(<BlockMask {self.lengths[0]} x {self.lengths[1]}>)"


class _ScoreModFunction(ScoreMod):
    """A function of rows and columns. Made by `from_score_mod`."""

    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        return super().modify(s, Coordinates(at.b, at.h, at.i, at.j, at.i, at.j, at.box))

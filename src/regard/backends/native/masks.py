"""A mask in the form the kernels read: a band, four integers a row, or bits."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from regard._coordinates import Frame
from regard.backends.native.abi import MaskKind, MaskView
from regard.masks import And, Causal, Everything, Mask, RowIntervals, SlidingWindow

_FAR = 1 << 40
_STRIP_PAIRS = 1 << 24

MAX_BITS_BYTES = 1 << 28
"""A mask without interval form is handed over with one bit a pair, up to this size."""


class KernelMask:
    """A mask for the kernels: the view they read, and the tensors it points into.

    Attributes:
        view: the C struct.
        kept: the tensors that must live as long as the view.
    """

    def __init__(self, view: MaskView, *kept: Tensor) -> None:
        self.view = view
        self.kept = kept


_kept: WeakKeyDictionary[Mask, tuple[tuple[int, ...], KernelMask]] = WeakKeyDictionary()
"""What was made of a settled mask, which all layers of a model use in turn."""


def kernel_mask(mask: Mask, frame: Frame, group: int) -> KernelMask:
    """The cheapest form of ``mask``, where every ``group`` query heads share a key/value head."""
    if not (mask.settled and frame.by_default):
        return _made(mask, frame, group)
    sizes = (frame.batch, frame.heads, frame.q_len, frame.k_len, group)
    kept = _kept.get(mask)
    if kept is None or kept[0] != sizes:
        kept = _kept[mask] = sizes, _made(mask, frame, group)
    return kept[1]


def _made(mask: Mask, frame: Frame, group: int) -> KernelMask:
    if 0 in (frame.batch, frame.heads, frame.q_len, frame.k_len):
        return KernelMask(MaskView(MaskKind.BAND))
    ends = _band(mask, frame)
    if ends is not None:
        return KernelMask(MaskView(MaskKind.BAND, *ends))
    rows = _intervals(mask, frame)
    return _bits(mask, frame, group) if rows is None else _from_rows(rows)


def is_band(mask: Mask, frame: Frame) -> bool:
    """Whether the mask is handed over as two numbers, whatever the tensors of a call hold."""
    return _band(mask, frame) is not None


def too_large(mask: Mask, frame: Frame) -> str | None:
    """Why this mask cannot be handed over, or None if it can."""
    if _bits_bytes(frame, frame.batch, frame.heads) <= MAX_BITS_BYTES or _band(mask, frame) is not None:
        return None
    size = _bits_bytes(frame, *_tells_apart(mask, frame))
    if size <= MAX_BITS_BYTES or _intervals(mask, frame) is not None:
        return None
    return (
        f"keeps one bit a pair of a mask whose rows are not one or two intervals, at most {MAX_BITS_BYTES >> 20} MiB, "
        f"and {mask!r} needs {size >> 20} MiB"
    )


def extra_bytes(mask: Mask, frame: Frame) -> int:
    """Bytes of the form in which the mask is handed over."""
    if 0 in (frame.batch, frame.heads, frame.q_len, frame.k_len) or _band(mask, frame) is not None:
        return 0
    rows = _intervals(mask, frame)
    return _bits_bytes(frame, *_tells_apart(mask, frame)) if rows is None else 16 * rows.start.shape[0] * frame.q_len


def _band(mask: Mask, frame: Frame) -> tuple[int, int] | None:
    """``(low, high)`` where row i sees the columns ``i + low <= j < i + high``, if the mask has this form."""
    if isinstance(mask, Everything):
        return -_FAR, _FAR
    if not frame.by_default:
        return None
    ahead = frame.k_len - frame.q_len
    if isinstance(mask, Causal):
        return -_FAR, ahead + 1
    if isinstance(mask, SlidingWindow):
        low = -_FAR if mask.left is None else ahead - mask.left
        return low, _FAR if mask.right is None else ahead + mask.right + 1
    if isinstance(mask, And):
        ends = [_band(part, frame) for part in mask.parts]
        known = [e for e in ends if e is not None]
        if len(known) == len(ends):
            return max(low for low, _ in known), min(high for _, high in known)
    return None


def _intervals(mask: Mask, frame: Frame) -> RowIntervals | None:
    rows = mask.intervals(frame)
    if rows is None:
        return None
    rows = rows.narrow()
    return rows if rows.per_row <= 2 else None


def _from_rows(rows: RowIntervals) -> KernelMask:
    batch, q_len, n = rows.start.shape
    ends = torch.zeros((batch, q_len, 2, 2), dtype=torch.int32, device=rows.start.device)
    ends[:, :, :n, 0] = rows.start
    ends[:, :, :n, 1] = rows.stop
    seen = rows.seen_keys().contiguous()
    view = MaskView(MaskKind.INTERVALS)
    view.rows, view.batch, view.row = ends.data_ptr(), _stride(batch, ends.stride(0)), 4
    view.seen, view.seen_batch = seen.data_ptr(), _stride(seen.shape[0], seen.stride(0))
    return KernelMask(view, ends, seen)


def _bits(mask: Mask, frame: Frame, group: int) -> KernelMask:
    words = -(-frame.k_len // 32)
    shape = _tells_apart(mask, frame)
    bits = torch.zeros((*shape, frame.q_len, words * 4), dtype=torch.uint8, device=frame.device)
    seen = torch.zeros((*shape, frame.k_len), dtype=torch.bool, device=frame.device)
    step = max(_STRIP_PAIRS // max(shape[0] * shape[1] * frame.k_len, 1), 1)
    for first in range(0, frame.q_len, step):
        rows = slice(first, min(first + step, frame.q_len))
        allowed = mask.allowed(frame.tile(rows, slice(0, frame.k_len)))
        allowed = allowed.expand(*shape, rows.stop - rows.start, frame.k_len)
        packed = np.packbits(allowed.numpy(), axis=-1, bitorder="little")
        bits[:, :, rows, : packed.shape[-1]] = torch.from_numpy(packed)
        seen |= allowed.any(2)
    if shape[1] > 1:
        seen = seen.unflatten(1, (-1, group)).any(2)
    view = MaskView(MaskKind.BITS)
    view.bits, view.row = bits.data_ptr(), words
    view.batch, view.head = (_stride(n, bits.stride(dim) // 4) for dim, n in enumerate(shape))
    view.seen = seen.data_ptr()
    view.seen_batch, view.seen_head = (_stride(n, seen.stride(dim)) for dim, n in enumerate(seen.shape[:2]))
    return KernelMask(view, bits, seen)


def _tells_apart(mask: Mask, frame: Frame) -> tuple[int, int]:
    """How many batch entries and heads the mask tells apart: 1 or all of them."""
    shape = mask.allowed(frame.tile(slice(0, 1), slice(0, 1))).shape
    batch, heads, *_ = (*(1,) * (4 - len(shape)), *shape)
    return batch, heads


def _bits_bytes(frame: Frame, batch: int, heads: int) -> int:
    return batch * heads * frame.q_len * (-(-frame.k_len // 32) * 4)


def _stride(size: int, stride: int) -> int:
    return stride if size > 1 else 0

"""Whether a mask needs keys that a cache has dropped."""

from __future__ import annotations

import torch

from regard._coordinates import Frame
from regard._errors import ArgumentError
from regard.cache.base import Cache
from regard.cache.windowed import WindowedCache
from regard.masks import Mask

_STRIP_PAIRS = 1 << 20
_REPAIR = (
    "Use a FullCache, a wider window or a mask that stays within it, such as mask & SlidingWindow.of_width(window)."
)


def check_reach(mask: Mask, cache: Cache, q_len: int, *, batch: int, heads: int, device: torch.device) -> None:
    """Raise when one of the next ``q_len`` queries may see a key that ``cache`` has dropped.

    Of a mask with an interval form it costs O(q_len); of any other, one evaluation of the dropped pairs, in strips.

    Args:
        mask: what the queries may see.
        cache: before the keys of these queries are appended.
        q_len: number of queries, at positions ``cache.length`` onwards.
        batch: batch entries of the call.
        heads: query heads of the call.
        device: where the call runs.

    Raises:
        ArgumentError: with the mask, the positions of the dropped keys, and what to do.
        ShapeError: a mask that is written for other sizes; one by row and column counts every token so far.
    """
    frame = Frame.of(batch, heads, q_len, cache.length + q_len, device=device)
    mask.check(frame)
    start, stop = cache.gone
    if torch.compiler.is_compiling():
        # A graph cannot ask; it goes on as if the answer were no, and stops where it is not.
        if torch.compiler.is_exporting() and isinstance(cache, WindowedCache):
            # A program for any length may not even ask how many are gone.
            at = frame.tile(slice(0, q_len), slice(0, cache.length))
            seen = (mask.allowed(at) & (at.j >= start) & (at.j < stop)).any()
        elif stop > start:
            seen = mask.allowed(frame.tile(slice(0, q_len), slice(start, stop))).any()
        else:
            return
        torch._assert_async(~seen, "the mask lets a query see keys that the cache has dropped. " + _REPAIR)
        return
    gone = cache.dropped
    if gone and q_len and _sees(mask, frame, gone):
        first, last = cache.length, cache.length + q_len - 1
        raise ArgumentError(
            f"the mask {mask!r} lets a query at position {first} … {last} see keys at positions "
            f"{gone.start} … {gone.stop - 1}, which {cache!r} has dropped. {_REPAIR}"
        )


def _sees(mask: Mask, frame: Frame, columns: range) -> bool:
    rows = mask.intervals(frame)
    if rows is not None:
        return bool((rows.start.clamp(min=columns.start) < rows.stop.clamp(max=columns.stop)).any())
    width = max(_STRIP_PAIRS // (frame.batch * frame.heads * frame.q_len), 1)
    everyone = slice(0, frame.q_len)
    return any(
        bool(mask.allowed(frame.tile(everyone, slice(j, min(j + width, columns.stop)))).any())
        for j in range(columns.start, columns.stop, width)
    )

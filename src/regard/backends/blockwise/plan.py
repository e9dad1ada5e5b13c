"""From a mask to the tiles to compute: steps over row blocks, EMPTY blocks left out, FULL ones not masked.

A step is a set of rows that share their key chunks. Large steps are slabs: views of the operands, every batch entry and
head at once. Small ones (windows, short documents, padded batches) are gathered, several row blocks at a time, so that
the number of Python steps follows the work and not the number of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from regard._call import Call
from regard.backends.blockwise.steps import Chunk, Gather, Item, Slab, Step
from regard.masks import BlockMap, Coverage, Everything
from regard.masks.blocks import Run, from_grid

BLOCK = (128, 64)
"""Rows and columns of a block."""

_LEAST_COLUMNS = 512
_GATHERED = 4
"""Gathered row blocks fill this many tiles: many small operations cost more than what leaves the cache."""


def tile_elements(device: torch.device) -> int:
    """How many scores a tile holds at most: about what a processor's cache does, or enough to fill a GPU."""
    return 1 << 19 if device.type == "cpu" else 1 << 24


def plan(call: Call) -> Iterator[Step]:
    """The steps that together compute every visible pair of the call once, always in the same order."""
    frame = call.frame
    if 0 in (frame.batch, frame.heads, frame.q_len, frame.k_len):
        return
    tile = tile_elements(call.q.device)
    block_map = _block_map(call)
    small: list[Item] = []
    for entry, _, block_row, runs in block_map:
        if not runs:
            continue
        rows = slice(block_row * BLOCK[0], min((block_row + 1) * BLOCK[0], frame.q_len))
        own = slice(0, frame.batch) if block_map.batch == 1 else slice(entry, entry + 1)
        stretches = _stretches(runs, frame.k_len)
        columns = sum(stop - start for start, stop, _ in stretches)
        per_entry = frame.heads * min(BLOCK[0], frame.q_len) * columns
        if 2 * per_entry * (own.stop - own.start) <= _GATHERED * tile:
            ranges = tuple((start, stop) for start, stop, _ in stretches)
            small += [Item(b, rows.start, ranges) for b in range(own.start, own.stop)]
        else:
            yield from _slabs(call, own, rows, stretches, tile)
    yield from _gathers(call, small, _GATHERED * tile)


def _block_map(call: Call) -> BlockMap:
    frame = call.frame
    if frame.q_len <= BLOCK[0] and frame.k_len <= _LEAST_COLUMNS and not isinstance(call.mask, Everything):
        # Too small for skipping to pay: everything PARTIAL.
        columns = -(-frame.k_len // BLOCK[1])
        grid = torch.full((1, 1, 1, columns), Coverage.PARTIAL, dtype=torch.uint8, device="cpu")
        return from_grid(grid, frame.q_len, frame.k_len, BLOCK)
    block_map = call.mask.block_map(frame, BLOCK)
    if block_map.heads == 1:
        return block_map
    grid = block_map.grid()
    some, every = (grid > Coverage.EMPTY).any(1, True), (grid == Coverage.FULL).all(1, True)
    return from_grid(some.to(torch.uint8) + every.to(torch.uint8), frame.q_len, frame.k_len, BLOCK)


_Stretch = tuple[int, int, list[tuple[int, int]]]


def _stretches(runs: list[Run], k_len: int) -> list[_Stretch]:
    """Neighbouring runs joined: first and last column, and the parts of them that are PARTIAL."""
    joined: list[_Stretch] = []
    for run in runs:
        start, stop = run.start * BLOCK[1], min(run.stop * BLOCK[1], k_len)
        masked = [(start, stop)] if run.coverage == Coverage.PARTIAL else []
        if joined and joined[-1][1] == start:
            first, _, before = joined.pop()
            start, masked = first, before + masked
        joined.append((start, stop, masked))
    return joined


def _slabs(call: Call, batch: slice, rows: slice, stretches: list[_Stretch], tile: int) -> Iterator[Slab]:
    count, group = rows.stop - rows.start, call.group
    widest = max(stop - start for start, stop, _ in stretches)
    columns = min(widest, _LEAST_COLUMNS)
    kv_heads = call.k.shape[1]
    heads_at_once = max(1, min(kv_heads, tile // (group * count * columns)))
    entries_at_once = max(1, tile // (group * kv_heads * count * columns)) if heads_at_once == kv_heads else 1
    for b in range(batch.start, batch.stop, entries_at_once):
        entries = slice(b, min(b + entries_at_once, batch.stop))
        for h in range(0, kv_heads, heads_at_once):
            own = slice(h, min(h + heads_at_once, kv_heads))
            pairs = (entries.stop - entries.start) * (own.stop - own.start) * group * count
            width = max(tile // pairs // BLOCK[1], 1) * BLOCK[1]
            chunks = tuple(chunk for stretch in stretches for chunk in _chunks(stretch, width))
            yield Slab(entries, own, slice(own.start * group, own.stop * group), rows, chunks)


def _chunks(stretch: _Stretch, width: int) -> Iterator[Chunk]:
    first, last, masked = stretch
    for start in range(first, last, width):
        stop = min(start + width, last)
        inside = [(max(a, start), min(b, stop)) for a, b in masked if a < stop and b > start]
        yield Chunk(start, stop, tuple(inside))


def _gathers(call: Call, items: list[Item], tile: int) -> Iterator[Gather]:
    """Row blocks of about equal width side by side, as many as fit a tile."""
    rows = min(BLOCK[0], call.frame.q_len)
    waiting = sorted(items, key=lambda item: item.columns)
    while waiting:
        columns = waiting[-1].columns
        most = max(1, tile // (call.frame.heads * rows * columns))
        together = [item for item in waiting[-most:] if 4 * item.columns >= 3 * columns]
        del waiting[-len(together) :]
        whole = (Chunk(0, columns, ((0, columns),)),)
        yield Gather(tuple(together), rows, call.frame.q_len, columns, whole, slice(0, call.frame.heads))

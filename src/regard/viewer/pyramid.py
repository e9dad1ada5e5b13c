"""The whole map of a head at one fine level and all coarser ones, computed once, kept in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from regard.viewer.maps import HeadMaps, coarser

BASE_BINS = 4096
"""At most as many bins a side at the finest level that is kept; ``web/src/served.ts`` knows it too."""

_STRIP_ROWS, _STRIP_PAIRS = 4096, 1 << 27
"""Most rows of a strip of a sweep, and about its pairs: a fifth of a second, for others wait meanwhile."""

_STRIP_BINS = 512
"""Rows of bins that are pooled at a time."""


def base_level(length: int) -> int:
    """The least ``z`` at which ``length`` fits into `BASE_BINS` bins of ``2**z``."""
    z = 0
    while -(-length >> z) > BASE_BINS:
        z += 1
    return z


class Pyramid:
    """The pooled maps of one head.

    Args:
        maps: of the head.
        hide: how many of the first keys to leave out.
        path: the file to keep the base in; one that is there and complete is read instead of computed.
    """

    def __init__(self, maps: HeadMaps, hide: int, path: Path) -> None:
        self.maps = maps
        self.hide = hide
        self.path = path
        self.zr, self.zc = base_level(maps.rows), base_level(maps.cols)
        self.done = 0.0
        self._shape = (4, -(-maps.rows >> self.zr), -(-maps.cols >> self.zc))
        self._base: Tensor | None = None
        self._levels: dict[tuple[int, int], Tensor] = {}
        if path.exists() and path.stat().st_size == 4 * int(np.prod(self._shape)):
            self._open(path, "r")
            self.done = 1.0

    def _open(self, path: Path, mode: str) -> Tensor:
        # Copy-on-write, because torch wants writable memory; nothing is written.
        array = np.memmap(path, np.float32, "c" if mode == "r" else "w+", shape=self._shape)
        self._base = torch.from_numpy(array)
        return self._base

    def build(self, turn: Callable[[], object]) -> None:
        """Compute the base strip by strip; ``turn`` is called between strips and may raise to give up."""
        if self.done >= 1:
            return
        part = self.path.with_suffix(".part")
        base = self._open(part, "w")
        for rows, done in self._strips():
            turn()
            planes = self.maps.pool(rows, slice(0, self.maps.cols), self.zr, self.zc, self.hide)
            first = rows.start >> self.zr
            base[:, first : first + planes.shape[1]] = planes
            self.done = min(done, 0.999)
        for up in range(1, max(self._shape[1:]).bit_length()):
            turn()
            self._level(up, up)
        part.replace(self.path)
        self.done = 1.0

    def _strips(self) -> Iterator[tuple[slice, float]]:
        """The rows of each strip, whole bins of them, and how much of the work is done after it."""
        bin_rows = 1 << self.zr
        padded = torch.nn.functional.pad(self.maps.pairs(), (0, -self.maps.rows % bin_rows))
        work = padded.unflatten(0, (-1, bin_rows)).sum(1).cumsum(0).tolist()
        most = max(_STRIP_ROWS // bin_rows, 1)
        first, before = 0, 0.0
        for n, now in enumerate(work, 1):
            full = n - first == most or (n < len(work) and work[n] - before > _STRIP_PAIRS)
            if full or n == len(work):
                rows = slice(first * bin_rows, min(n * bin_rows, self.maps.rows))
                yield rows, now / work[-1] if work[-1] else 1.0
                first, before = n, now

    def tile(self, zr: int, zc: int, row: int, col: int, size: int) -> Tensor:
        """Tile ``(row, col)`` of ``size`` bins a side at a level that is not finer than the base."""
        up, over = zr - self.zr, zc - self.zc
        level = self._level(up, over)
        return level[:, row * size : (row + 1) * size, col * size : (col + 1) * size]

    def _level(self, up: int, over: int) -> Tensor:
        assert self._base is not None
        if not up and not over:
            return self._base
        if (up, over) not in self._levels:
            below = (max(up - 1, 0), max(over - 1, 0))
            rows, cols = up - below[0], over - below[1]
            z, finer = self.zr + below[0], self._level(*below)
            strips = range(0, finer.shape[1], _STRIP_BINS)
            parts = [coarser(finer[:, n : n + _STRIP_BINS], rows, cols, z, self.maps.rows - (n << z)) for n in strips]
            self._levels[up, over] = torch.cat(parts, 1)
        return self._levels[up, over]


def fingerprint(maps: HeadMaps) -> str:
    """What a head's maps depend on, in a few characters: sizes, scale, mask and score changes, sampled q and k, lse."""
    call, entry = maps.layer.call, maps.layer.entry
    digest = hashlib.blake2b(digest_size=10)
    digest.update(repr((maps.rows, maps.cols, call.scale, call.mask, call.score_mods, entry, maps.head)).encode())
    lse = maps.layer.lse[entry, maps.head].detach().float().cpu()
    digest.update(lse.numpy().tobytes())
    return digest.hexdigest()

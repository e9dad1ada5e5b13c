"""Arrays inside a page: half floats, byte planes, deflate, base64."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Reference = dict[str, object]

_LEVEL = 6


class Chunks:
    """The arrays of one page; equal ones are kept once.

    A compressed array is stored as byte planes (all first bytes, then all second ones, …), because the exponents of
    numbers resemble each other and their fractions do not.

    Args:
        compress: deflate what gets smaller by it.
    """

    def __init__(self, *, compress: bool) -> None:
        self._compress = compress
        self._known: dict[bytes, Reference] = {}
        self.texts: dict[str, str] = {}

    @property
    def size(self) -> int:
        """Characters of all arrays."""
        return sum(len(text) for text in self.texts.values())

    def add(self, values: Array) -> Reference:
        """Keep an array of float16, float32, int32 or uint8; returns how the page finds it."""
        little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        raw = little.tobytes()
        key = hashlib.blake2b(raw, key=little.dtype.str.encode(), digest_size=16).digest()
        if key not in self._known:
            name = f"c{len(self._known)}"
            packed = self._packed(raw, little.dtype.itemsize)
            deflated = packed is not None
            self.texts[name] = base64.b64encode(raw if packed is None else packed).decode()
            self._known[key] = {"id": name, "type": little.dtype.str[1:], "count": little.size, "deflated": deflated}
        return self._known[key]

    def _packed(self, raw: bytes, width: int) -> bytes | None:
        if not self._compress or len(raw) < 64:
            return None
        planes = np.frombuffer(raw, np.uint8).reshape(-1, width).T
        # Half floats repeat no strings: coding their bytes by frequency alone is as small and many times as fast.
        strategy = zlib.Z_HUFFMAN_ONLY if width == 2 else zlib.Z_DEFAULT_STRATEGY
        packer = zlib.compressobj(_LEVEL, strategy=strategy)
        packed = packer.compress(np.ascontiguousarray(planes).tobytes()) + packer.flush()
        return packed if len(packed) < 0.98 * len(raw) else None


def halves(x: Tensor) -> tuple[Array, float]:
    """``x`` as float16 and the power of two that it was divided by, so that nothing overflows and little vanishes."""
    x = x.detach().to("cpu", torch.float64 if x.dtype == torch.float64 else torch.float32)
    largest = float(x.abs().max()) if x.numel() else 0.0
    if not 0 < largest < float("inf"):
        return x.to(torch.float16).numpy(), 1.0
    scale = 2.0 ** (int(np.floor(np.log2(largest))) - 12)
    return (x / scale).to(torch.float16).numpy(), scale

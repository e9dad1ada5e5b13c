"""Where in the score tensor something is evaluated: rows, columns, and absolute positions.

A mask or a score change never sees a score tensor's layout. It sees `Coordinates`: six integer tensors that
broadcast together, so that the same definition serves one pair, a tile, a list of gathered tiles, or everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, ShapeError, describe

Box = tuple[slice, slice, slice, slice]
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Six int64 tensors that broadcast together.

    Attributes:
        b: flattened batch index.
        h: query head.
        i: the call's row (query index).
        j: the call's column (key index).
        q: absolute position of the query in row ``i``.
        k: absolute position of the key in column ``j``.
        box: the slices ``(b, h, i, j)`` these coordinates cover, where they form a box: a tensor indexed by row and
            column may then be sliced instead of gathered.
    """

    b: Tensor
    h: Tensor
    i: Tensor
    j: Tensor
    q: Tensor
    k: Tensor
    box: Box | None = None

    @property
    def shape(self) -> torch.Size:
        """The shape that the six tensors broadcast to."""
        return torch.Size(torch.broadcast_shapes(*(x.shape for x in (self.b, self.h, self.i, self.j))))

    def first(self) -> Coordinates:
        """The coordinates of the first pair."""

        def one(x: Tensor) -> Tensor:
            return x[(slice(0, 1),) * x.ndim]

        return Coordinates(one(self.b), one(self.h), one(self.i), one(self.j), one(self.q), one(self.k))

    def pick(self, index: Tensor, shape: torch.Size) -> Coordinates:
        """The coordinates of one pair: a flat index into ``shape``, to which the tensors broadcast."""

        def one(x: Tensor) -> Tensor:
            return x.expand(shape).flatten().index_select(0, index.reshape(1))

        return Coordinates(one(self.b), one(self.h), one(self.i), one(self.j), one(self.q), one(self.k))

    def where(self, keep: Tensor, safe: Coordinates) -> Coordinates:
        """These coordinates where ``keep`` is true, ``safe`` elsewhere."""

        def either(mine: Tensor, other: Tensor) -> Tensor:
            return torch.where(keep, mine, other)

        return Coordinates(
            either(self.b, safe.b),
            either(self.h, safe.h),
            either(self.i, safe.i),
            either(self.j, safe.j),
            either(self.q, safe.q),
            either(self.k, safe.k),
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """Sizes and positions of one attention call: everything a mask may depend on besides its own content.

    Positions default to keys ``0 … k_len-1`` and queries ``k_len-q_len … k_len-1`` (bottom-right: the last query
    is at the last key). Explicit positions are int64 ``(L,)`` or ``(B, L)``, in any order, repeats allowed.
    """

    batch: int
    heads: int
    q_len: int
    k_len: int
    q_positions: Tensor | None = None
    k_positions: Tensor | None = None
    device: torch.device = _CPU

    @staticmethod
    def of(
        batch: int,
        heads: int,
        q_len: int,
        k_len: int,
        q_positions: Tensor | None = None,
        k_positions: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Frame:
        """A frame with its positions checked.

        Raises:
            KindError: positions that are no int64 tensor.
            ShapeError: positions of another length or batch.
            ArgumentError: positions on another device, a negative size.
        """
        device = torch.device(device)
        for name, size in (("batch", batch), ("heads", heads), ("q_len", q_len), ("k_len", k_len)):
            if not isinstance(size, (int, torch.SymInt)) or isinstance(size, bool):
                raise KindError(f"{name} is a size and must be an int: got {describe(size)}.")
            if size < 0:
                raise ArgumentError(f"{name} is a size and must be at least 0: got {size}.")
        q_positions = _checked_positions("q_positions", q_positions, batch, q_len, device)
        k_positions = _checked_positions("k_positions", k_positions, batch, k_len, device)
        return Frame(batch, heads, q_len, k_len, q_positions, k_positions, device)

    @property
    def by_default(self) -> bool:
        """True when both sequences have their default positions."""
        return self.q_positions is None and self.k_positions is None

    @cached_property
    def q_pos(self) -> Tensor:
        """Query positions, ``(1 or B, q_len)``."""
        if self.q_positions is not None:
            return self.q_positions
        return torch.arange(self.k_len - self.q_len, self.k_len, device=self.device)[None]

    @cached_property
    def k_pos(self) -> Tensor:
        """Key positions, ``(1 or B, k_len)``."""
        if self.k_positions is not None:
            return self.k_positions
        return torch.arange(self.k_len, device=self.device)[None]

    def at(self, b: Tensor, h: Tensor, i: Tensor, j: Tensor, box: Box | None = None) -> Coordinates:
        """Coordinates of the pairs named by the broadcasting index tensors ``b, h, i, j``."""
        if self.q_positions is None:
            q = i + (self.k_len - self.q_len)
        else:
            q = self.q_positions[b if self.q_positions.shape[0] > 1 else torch.zeros_like(b), i]
        if self.k_positions is None:
            k = j
        else:
            k = self.k_positions[b if self.k_positions.shape[0] > 1 else torch.zeros_like(b), j]
        return Coordinates(b, h, i, j, q, k, box)

    def tile(self, rows: slice, cols: slice, batch: slice | None = None, heads: slice | None = None) -> Coordinates:
        """Coordinates of the box ``rows x cols``, for every batch and head unless those are given; 4-D."""
        batch = slice(0, self.batch) if batch is None else batch
        heads = slice(0, self.heads) if heads is None else heads
        b, h, i, j = (torch.arange(s.start, s.stop, device=self.device) for s in (batch, heads, rows, cols))
        box = (batch, heads, rows, cols)
        return self.at(b[:, None, None, None], h[:, None, None], i[:, None], j, box)

    def everywhere(self) -> Coordinates:
        """Coordinates of every pair of the call; 4-D."""
        return self.tile(slice(0, self.q_len), slice(0, self.k_len))


def broadcasts(size: int, to: int) -> bool:
    """Whether a dim of ``size`` broadcasts to one of ``to``.

    Not ``size in (1, to)``: in a graph, a known size is no member of a tuple that holds a symbol of the same value.
    """
    return size == 1 or size == to


def _checked_positions(
    name: str, positions: Tensor | None, batch: int, length: int, device: torch.device
) -> Tensor | None:
    if positions is None:
        return None
    if not isinstance(positions, Tensor) or positions.dtype != torch.int64:
        raise KindError(f"{name} must be an int64 tensor: got {describe(positions)}. Convert it with .long().")
    if positions.device != device:
        raise ArgumentError(
            f"{name} must be on the device of q, k and v ({device}): got {describe(positions)}. "
            f"Move it with .to({str(device)!r})."
        )
    fits = positions.ndim in (1, 2) and positions.shape[-1] == length
    if not fits or (positions.ndim == 2 and not broadcasts(positions.shape[0], batch)):
        raise ShapeError(
            f"{name} must be ({length},) or ({batch}, {length}), one position per token: got {tuple(positions.shape)}."
        )
    return positions if positions.ndim == 2 else positions[None]

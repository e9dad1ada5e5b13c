"""What a mask is: a predicate on absolute positions that combines, compares, prints and draws itself.

**True means "may attend"**, everywhere. A mask is written by giving `Mask.allowed`, its definition pair by pair. Where
each row's keys form a few intervals, `Mask.intervals` says so in closed form, and the block structure, the plan of
every backend and the pictures follow from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from regard._coordinates import Coordinates, Frame, broadcasts
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard._pytree import register
from regard.masks import blocks as _blocks
from regard.masks.blocks import BlockMap
from regard.masks.intervals import RowIntervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRIP_PAIRS = 1 << 22
_MOST = 1 << 62


class Mask(ABC):
    """Base of all masks. Immutable; combine with ``&``, ``|`` and ``~``.

    ``==`` and `hash` go by structure and by the identity and version of tensors, so that a mask can key a cache;
    `equal` compares contents. A repr without tensors evaluates back to an equal mask. To torch a mask is a pytree with
    its tensors as leaves.
    """

    settled = False
    """Whether no one else has this mask's tensors, so that a backend may keep what it made of them."""

    def __init_subclass__(cls) -> None:
        register(cls)

    @abstractmethod
    def allowed(self, at: Coordinates) -> Tensor:
        """Whether the query may attend to the key, bool, broadcastable to ``at.shape``. This is the definition."""

    def intervals(self, frame: Frame) -> RowIntervals | None:
        """Each row's columns as at most a few intervals, or None where there is no such form."""
        return None

    def check(self, frame: Frame) -> None:  # noqa: B027  (most masks fit every call)
        """Raise when this mask's tensors do not fit a call of this size."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors this mask reads, in a fixed order."""
        return ()

    @property
    def batch(self) -> int:
        """1, or the batch size that this mask's tensors are written for."""
        return 1

    @property
    def heads(self) -> int:
        """1, or the number of query heads that this mask's tensors are written for."""
        return 1

    @property
    def extent(self) -> tuple[int | None, int | None]:
        """The numbers of queries and keys that this mask's tensors are written for; None where any will do."""
        return None, None

    @abstractmethod
    def _key(self) -> Hashable:
        """What makes two masks the same, tensors left out."""

    def _with_tensors(self, tensors: tuple[Tensor, ...]) -> Self:
        """This mask over other tensors, in the order of `tensors`."""
        return self

    # --- algebra -----------------------------------------------------------------------------------------------

    def __and__(self, other: Mask) -> Mask:
        return _combine("both", self, other)

    def __or__(self, other: Mask) -> Mask:
        return _combine("either", self, other)

    def __invert__(self) -> Mask:
        from regard.masks.algebra import negation

        return negation(self)

    def __bool__(self) -> bool:
        raise KindError("a mask has no truth value. Combine masks with & | ~ instead of and, or, not.")

    # --- identity ----------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        if type(self) is not type(other) or self._key() != other._key():
            return False
        return all(a is b for a, b in zip(self.tensors(), other.tensors(), strict=True))

    def __hash__(self) -> int:
        return hash((self._key(), tuple((id(t), version(t)) for t in self.tensors())))

    def equal(self, other: Mask) -> bool:
        """True when both have the same structure and tensors of the same content."""
        if type(self) is not type(other) or self._key() != other._key():
            return False
        pairs = list(zip(self.tensors(), other.tensors(), strict=True))
        return all(a.shape == b.shape and a.device == b.device and torch.equal(a, b) for a, b in pairs)

    def to(self, device: torch.device | str) -> Self:
        """This mask with its tensors on ``device``."""
        return self.map(lambda t: t.to(device))

    def settle(self) -> Self:
        """This mask over copies of its tensors that no one can write into: `settled`."""
        if not self.tensors():
            return self
        with torch.inference_mode(mode=False):
            copied = self.map(torch.clone)
        copied.settled = True
        return copied

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """This mask with ``change`` applied to each of its tensors."""
        tensors = self.tensors()
        return self._with_tensors(tuple(change(t) for t in tensors)) if tensors else self

    # --- other forms -------------------------------------------------------------------------------------------

    def dense(
        self,
        q_len: int,
        k_len: int,
        q_positions: Tensor | None = None,
        k_positions: Tensor | None = None,
        *,
        batch: int | None = None,
        heads: int | None = None,
    ) -> Tensor:
        """The mask as a tensor; True means "may attend".

        Args:
            q_len: number of queries.
            k_len: number of keys.
            q_positions: int64 ``(q_len,)`` or ``(B, q_len)``; default ``k_len - q_len … k_len - 1``.
            k_positions: int64 ``(k_len,)`` or ``(B, k_len)``; default ``0 … k_len - 1``.
            batch: batch entries to evaluate; default: as many as the mask's tensors or the positions have.
            heads: query heads to evaluate; default: as many as the mask's tensors have.

        Returns:
            bool, always 4-D, broadcastable to ``(B, H, q_len, k_len)``.

        >>> from regard.masks import Causal
        >>> Causal().dense(2, 3)[0, 0].int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
        """
        return self.over(self.frame(q_len, k_len, q_positions, k_positions, batch=batch, heads=heads))

    def over(self, frame: Frame) -> Tensor:
        """The mask for a whole call, bool, 4-D, broadcastable to ``(B, H, q_len, k_len)``."""
        self.check(frame)
        allowed = self.allowed(frame.everywhere())
        allowed = allowed.reshape((1,) * (4 - allowed.ndim) + tuple(allowed.shape))
        return allowed.expand(allowed.shape[0], allowed.shape[1], frame.q_len, frame.k_len)

    def blocks(
        self,
        q_len: int,
        k_len: int,
        block: tuple[int, int] = (64, 64),
        q_positions: Tensor | None = None,
        k_positions: Tensor | None = None,
        *,
        batch: int | None = None,
        heads: int | None = None,
    ) -> BlockMap:
        """Which blocks are EMPTY, PARTIAL and FULL, as runs; arguments as in `dense`.

        In closed form, without anything of size ``q_len * k_len``, wherever `intervals` has one. EMPTY and FULL are
        always true of the mask; PARTIAL may be said of a block that is EMPTY or FULL only in an ``&`` or ``|`` of
        masks without an interval form.

        >>> Causal().blocks(1_000_000, 1_000_000)
        <BlockMap 1000000 x 1000000 in blocks of 64 x 64: 122062500 EMPTY, 15625 PARTIAL, 122062500 FULL>
        """
        if not isinstance(block, tuple | list) or len(block) != 2 or not all(type(n) is int and n > 0 for n in block):
            raise ArgumentError(f"block must be two positive ints (rows, columns): got {block!r}.")
        frame = self.frame(q_len, k_len, q_positions, k_positions, batch=batch, heads=heads)
        self.check(frame)
        return self.block_map(frame, block)

    def block_map(self, frame: Frame, block: tuple[int, int]) -> BlockMap:
        """`blocks` for a call whose frame is known."""
        rows = self.intervals(frame)
        if rows is not None:
            return _blocks.from_intervals(rows, frame.q_len, block)
        return _blocks.from_grid(self.grid(frame, block), frame.q_len, frame.k_len, block)

    def grid(self, frame: Frame, block: tuple[int, int]) -> Tensor:
        """`Coverage` of every block, uint8 ``(B or 1, H or 1, block_rows, block_cols)``, evaluated strip by strip."""
        rows = self.intervals(frame)
        if rows is not None:
            return _blocks.from_intervals(rows, frame.q_len, block).grid()
        block_q, block_k = block
        starts = range(0, frame.q_len, block_q)
        strips = [self._strip(frame, slice(i, min(i + block_q, frame.q_len)), block_k) for i in starts]
        if not strips:
            return torch.zeros((1, 1, 0, -(-frame.k_len // block_k)), dtype=torch.uint8, device=frame.device)
        return torch.cat(torch.broadcast_tensors(*strips), 2)

    def _strip(self, frame: Frame, rows: slice, block_k: int) -> Tensor:
        pairs = max(frame.batch * frame.heads * (rows.stop - rows.start), 1)
        width = max(_STRIP_PAIRS // pairs // block_k, 1) * block_k
        parts = []
        for j in range(0, frame.k_len, width):
            cols = slice(j, min(j + width, frame.k_len))
            allowed = self.allowed(frame.tile(rows, cols))
            allowed = allowed.reshape((1,) * (4 - allowed.ndim) + tuple(allowed.shape))
            allowed = allowed.expand(-1, -1, rows.stop - rows.start, cols.stop - cols.start)
            some, every = allowed.any(2), allowed.all(2)
            ragged = -(cols.stop - cols.start) % block_k
            some = torch.nn.functional.pad(some, (0, ragged), value=False).unflatten(-1, (-1, block_k)).any(-1)
            every = torch.nn.functional.pad(every, (0, ragged), value=True).unflatten(-1, (-1, block_k)).all(-1)
            parts.append(some.to(torch.uint8) + every.to(torch.uint8))
        if not parts:
            return torch.zeros((1, 1, 1, 0), dtype=torch.uint8, device=frame.device)
        return torch.cat(parts, -1)[:, :, None]

    def frame(
        self,
        q_len: int,
        k_len: int,
        q_positions: Tensor | None = None,
        k_positions: Tensor | None = None,
        *,
        batch: int | None = None,
        heads: int | None = None,
    ) -> Frame:
        """A call of this size, with the batch and heads of this mask's tensors and positions unless given."""
        sizes = [p.shape[0] for p in (q_positions, k_positions) if isinstance(p, Tensor) and p.ndim == 2]
        batch = max([self.batch, *sizes]) if batch is None else batch
        heads = self.heads if heads is None else heads
        device = next((t.device for t in (*self.tensors(), q_positions, k_positions) if t is not None), "cpu")
        return Frame.of(batch, heads, q_len, k_len, q_positions, k_positions, device)

    # --- pictures ----------------------------------------------------------------------------------------------

    def show(self, q_len: int, k_len: int, q_positions: Tensor | None = None, k_positions: Tensor | None = None) -> str:
        """A text picture: queries go down, keys go right, ``■`` may attend, ``·`` may not, ``▒`` a part of a block.

        >>> print(Causal().show(3, 5))
            0 1 2 3 4
        2   ■ ■ ■ · ·
        3   ■ ■ ■ ■ ·
        4   ■ ■ ■ ■ ■
        """
        from regard.masks import picture

        return picture.text(self, self.frame(q_len, k_len, q_positions, k_positions))

    def plot(
        self,
        q_len: int,
        k_len: int,
        q_positions: Tensor | None = None,
        k_positions: Tensor | None = None,
        *,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the mask with matplotlib (``pip install regard[plot]``); returns the axes."""
        from regard.masks import picture

        return picture.plot(self, self.frame(q_len, k_len, q_positions, k_positions), ax)

    def _repr_html_(self) -> str:
        from regard.masks import picture

        return picture.html(self)


class Stateless(Mask):
    """A mask without tensors: its repr is the source that makes it, and its key is that source."""

    def _key(self) -> Hashable:
        return repr(self)


def _combine(how: str, left: Mask, right: object) -> Mask:
    from regard.masks import algebra

    if not isinstance(right, Mask):
        raise KindError(
            f"masks combine with masks: got {describe(right)}. A bool tensor becomes one with Dense(tensor), "
            "where True means may attend."
        )
    return algebra.conjunction(left, right) if how == "both" else algebra.disjunction(left, right)


def checked_int(name: str, value: object, least: int) -> int:
    """``value`` as an int of at least ``least``.

    Raises:
        KindError: no int.
        ArgumentError: too small, or so large that its sum with a position would overflow.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise KindError(f"{name} must be an int: got {describe(value)}.")
    if value < least:
        raise ArgumentError(f"{name} must be at least {least}: got {value}.")
    if value > _MOST:
        raise ArgumentError(f"{name} must be at most 2**62, as positions are int64: got {value}.")
    return value


def check_batch(name: str, size: int, frame: Frame) -> None:
    """Raise unless ``size`` is 1 or the batch of the call."""
    if not broadcasts(size, frame.batch):
        raise ShapeError(
            f"{name} is written for a batch of {size}, but the call has a flattened batch of {frame.batch}. "
            "Give one row, or one for every batch entry."
        )


def check_device(name: str, tensor: Tensor, frame: Frame) -> None:
    """Raise unless ``tensor`` is on the device of the call."""
    if tensor.device != frame.device:
        raise ArgumentError(
            f"{name} must be on the device of q, k and v ({frame.device}): got {describe(tensor)}. "
            f"Move the mask with .to({str(frame.device)!r})."
        )


def version(tensor: Tensor) -> int | None:
    """How often ``tensor`` was changed in place; None for inference tensors, which do not count."""
    return None if tensor.is_inference() else tensor._version


def summary(tensor: Tensor) -> str:
    """A tensor inside a repr, which then does not evaluate back: ``<int64 (2, 9)>``."""
    return f"<{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}>"

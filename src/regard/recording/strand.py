"""One layer in one run of a model, growing call by call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from regard._call import Call
from regard.masks import Dense, Everything
from regard.masks.padding import ValidKeys
from regard.recording.choice import Choice
from regard.recording.growing import Growing
from regard.recording.layer import Kind, Layer
from regard.recording.pieces import Piece, joined_mask, joined_score_mods
from regard.recording.restrict import everywhere, restricted_mask, restricted_score_mod
from regard.scores import Bias, RelativeBias, ScoreModification
from regard.scores.holder import TensorHolder

_SAMPLE = 16
_LOOSE = 1.2
"""A tensor whose storage is this much larger than itself is copied, so that the rest can be freed."""


class Place(NamedTuple):
    """Where a call's keys stand among the columns of a strand.

    Attributes:
        known: how many columns are there already; what is behind them was taken back.
        offset: the column of the call's first key.
        present: bool ``(1, columns)``, the columns that the call has keys for, where those are not in one piece.
    """

    known: int
    offset: int
    present: Tensor | None = None


FIRST = Place(0, 0)


class Strand:
    """Queries, keys and logsumexp of consecutive calls, as one layer.

    Args:
        name: of the layer.
        index: its number.
        kind: its kind.
        call: the first call.
        choice: what of it is recorded.
        copy: keep copies, never the model's own tensors.
        device: where to keep them; None for where they are.
    """

    def __init__(
        self, name: str, index: int, kind: Kind, call: Call, choice: Choice, *, copy: bool, device: torch.device | None
    ) -> None:
        self.name, self.index, self.kind = name, index, kind
        self._choice, self._copy, self._device = choice, copy, device
        self.heads, kv = choice.heads(index, call.q.shape[1], call.k.shape[1])
        self._heads = everywhere(call.q.shape[1], self.heads, call.q.device)
        self._kv = everywhere(call.k.shape[1], kv, call.q.device)
        self._sizes = _sizes(call)
        self._q, self._k, self._lse, self._norms = Growing(), Growing(), Growing(), Growing()
        self._scale, self._sinks = call.scale, call.sinks
        self._q_positions: list[Tensor] = []
        self._k_positions: list[Tensor] = []
        self._pieces: list[Piece] = []
        self._mods: dict[int, tuple[ScoreModification, ScoreModification]] = {}
        self._context: Tensor | None = None

    @property
    def columns(self) -> int:
        """Keys so far."""
        return self._k.length

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return sum(x.nbytes for x in (self._q, self._k, self._lse, self._norms))

    def fits(self, call: Call) -> Place | None:
        """Where the call's keys stand if the call goes on where this ends, else None.

        It does if its keys are the last of those here, followed by one new key a query; in a cross-attention, if they
        are the very same. So recorded keys are compared with those that come from the cache, on a sample.
        """
        if _sizes(call) != self._sizes or call.scale != self._scale:
            return None
        if self.kind == "cross":
            same = self._context is not None and _identity(self._context) == _identity(call.k)
            return Place(self.columns, 0) if same else None
        past = self.written(call) - call.q.shape[2]
        if not 0 < past <= self.columns:
            return None
        if call.frame.k_positions is not None:
            return self._by_position(call, past)
        for offset in dict.fromkeys((self.columns - past, 0)):
            if self._agree(call, torch.arange(offset, offset + past)):
                return Place(offset + past, offset)
        return None

    def add(self, call: Call, lse: Tensor, norms: Tensor, place: Place) -> None:
        """Take in a call.

        Args:
            call: the call, its keys included.
            lse: ``(B, H, Lq)``.
            norms: of the values of the call's new keys, ``(B, H, new)``.
            place: from `fits`; `FIRST` for the first call.
        """
        cols, offset = self.written(call), place.offset
        new = self.new_columns(call)
        self._forget(place.known)
        self._add_keys(call, new, cols, place)
        self._norms.append(self._kept(norms if self._heads is None else norms.index_select(1, self._heads)))
        positions = self._positions_of(call, offset)
        rows = self._choice.rows(positions[0])
        self._q.append(self._kept(self._rows(call.q.detach(), rows)))
        self._lse.append(self._kept(self._rows(lse.detach(), rows)))
        self._q_positions.append(positions if rows is None else positions[:, rows])
        mask = restricted_mask(call.mask, self._heads, None)
        mods = tuple(self._for_heads(mod) for mod in call.score_mods)
        frame = replace(call.frame, heads=len(self.heads))
        if place.present is not None:
            cols = place.known + new
            frame = replace(frame, k_len=cols, k_positions=_cat(self._k_positions))
        self._pieces.append(Piece(mask, mods, frame, rows, offset, cols, place.present))
        # Held, so that no other keys can come to stand in its place in memory.
        self._context = call.k.detach() if self.kind == "cross" else None

    def new_columns(self, call: Call) -> int:
        """How many of the call's last keys are not here yet."""
        if not self._pieces:
            return self.written(call)
        return 0 if self.kind == "cross" else call.q.shape[2]

    def written(self, call: Call) -> int:
        """How many of the call's keys exist: a cache of fixed size has room behind them, which the mask hides."""
        q_len, k_len = call.q.shape[2], call.k.shape[2]
        plain = call.frame.q_positions is None and not call.mask.tensors()
        if self.kind == "cross" or plain or call.frame.k_positions is not None or not 0 < q_len < k_len:
            return k_len
        # The last query sees the last key that exists; where it sees less than all, the others are asked too.
        last = call.mask.allowed(call.frame.tile(slice(q_len - 1, q_len), slice(0, k_len)))
        if _reach(last.expand(*last.shape[:-1], k_len)) == k_len:
            return k_len
        rows = call.mask.intervals(call.frame)
        if rows is None:
            return max(_reach(call.mask.over(call.frame)), q_len)
        return max(int(torch.where(rows.start < rows.stop, rows.stop, 0).max()), q_len)

    def layer(self) -> Layer:
        """The layer as it is now.

        Raises:
            StaleError: a tensor that is kept by reference was changed in place.
            UnsupportedError: calls that cannot be one.
        """
        q, k, lse, norms = (x.whole() for x in (self._q, self._k, self._lse, self._norms))
        q_positions, k_positions = _cat(self._q_positions), _cat(self._k_positions)
        q_len, k_len = q.shape[2], k.shape[2]
        by_default = torch.arange(k_len, device=k_positions.device)
        kept_k = None if torch.equal(k_positions, by_default[None]) else k_positions
        kept_q = None if torch.equal(q_positions, by_default[None, k_len - q_len :]) else q_positions
        frame = replace(
            self._pieces[0].frame, q_len=q_len, k_len=k_len, q_positions=q_positions, k_positions=k_positions
        )
        mask, mods = joined_mask(self._pieces, frame), joined_score_mods(self._pieces, k_len)
        sinks = self._sinks if self._sinks is None or self._heads is None else self._sinks[self._heads]
        return Layer(
            self.name,
            self.index,
            self.kind,
            self.heads,
            q,
            k,
            lse,
            mask.to(q.device),
            tuple(mod.to(q.device) if isinstance(mod, TensorHolder | RelativeBias) else mod for mod in mods),
            self._scale,
            None if sinks is None else sinks.detach().to(q.device, copy=True),
            None if kept_q is None else kept_q.to(q.device),
            None if kept_k is None else kept_k.to(q.device),
            norms,
        )

    def spill(self, folder: Path, name: str) -> None:
        """Move all tensors to files in ``folder``, which begin with ``name``."""
        for part, x in (("q", self._q), ("k", self._k), ("lse", self._lse), ("norms", self._norms)):
            x.spill(folder / f"{name}-{part}-{x.length}.safetensors")

    def _add_keys(self, call: Call, new: int, cols: int, place: Place) -> None:
        k = call.k.detach()
        k = k if self._kv is None else k.index_select(1, self._kv)
        positions = call.frame.k_pos[:, cols - new : cols]
        self._k_positions.append(positions if call.frame.k_positions is not None else positions + place.offset)
        whole = place.known + new == cols == k.shape[2] and not _loose(k)
        if whole and not self._copy and self._device in (None, k.device) and self._k.nbytes:
            self._k.check()
            self._k.replace(k)
        elif new:
            # Where there is room behind the keys, the cache will write into it.
            self._k.append(self._kept(k[:, :, cols - new : cols], copy=cols < k.shape[2]))

    def _positions_of(self, call: Call, offset: int) -> Tensor:
        """Where the call's queries stand among all, ``(1 or B, Lq)``."""
        by_place = isinstance(call.mask, Everything | ValidKeys | Dense) and not call.score_mods
        if self.kind == "cross" and call.frame.by_default and by_place:
            # The default puts the last query at the last key, and these are of another sequence.
            done = sum(piece.frame.q_len for piece in self._pieces)
            return torch.arange(done, done + call.q.shape[2], device=call.q.device)[None]
        if not call.frame.by_default:
            return call.frame.q_pos + (0 if call.frame.k_positions is not None else offset)
        stop = offset + self.written(call)
        return torch.arange(stop - call.q.shape[2], stop, device=call.q.device)[None]

    def _forget(self, columns: int) -> None:
        """Drop what stands at the column ``columns`` or later: drafted tokens that were taken back."""
        if columns >= self.columns:
            return
        limit = int(_cat(self._k_positions)[0, columns])
        rows = int((_cat(self._q_positions)[0] < limit).sum())
        self._k_positions = [_cat(self._k_positions)[:, :columns]]
        self._q_positions = [_cat(self._q_positions)[:, :rows]]
        for x, length in ((self._k, columns), (self._norms, columns), (self._q, rows), (self._lse, rows)):
            x.truncate(length)
        kept: list[Piece] = []
        for piece in self._pieces:
            left = rows - sum(one.count for one in kept)
            if left > 0:
                kept.append(piece if piece.count <= left else piece.first(left))
        self._pieces = kept

    def _for_heads(self, mod: ScoreModification) -> ScoreModification:
        """A score change for the recorded heads, the same one whenever it is the same one."""
        if self._heads is None:
            return mod
        if id(mod) not in self._mods:
            self._mods[id(mod)] = mod, restricted_score_mod(mod, self._heads, None)
        return self._mods[id(mod)][1]

    def _rows(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """The recorded heads and rows of ``x (B, H, Lq, …)``."""
        x = x if self._heads is None else x.index_select(1, self._heads)
        return x if rows is None else x.index_select(2, rows)

    def _kept(self, x: Tensor, *, copy: bool = False) -> Tensor:
        """``x`` where and how it is kept."""
        moved = x if self._device is None else x.to(self._device)
        if moved is x and (copy or self._copy or _loose(x)):
            return x.clone(memory_format=torch.contiguous_format)
        return moved

    def _by_position(self, call: Call, past: int) -> Place | None:
        """`fits` for a cache that knows the positions of its keys and may have dropped any of them."""
        held, theirs = _cat(self._k_positions)[0], call.frame.k_pos[0]
        columns = torch.searchsorted(held, theirs[:past].contiguous())
        if int(columns[-1]) >= len(held) or not torch.equal(held[columns], theirs[:past]):
            return None
        if not self._agree(call, columns.cpu()):
            return None
        known = int(torch.searchsorted(held, theirs[past : past + 1])) if past < len(theirs) else len(held)
        first, last = int(columns[0]), int(columns[-1])
        if last == known - 1 and last - first + 1 == past:
            return Place(known, first)
        if call.mask.extent[1] is not None or any(isinstance(mod, Bias) for mod in call.score_mods):
            return None
        present = torch.ones((1, known + call.q.shape[2]), dtype=torch.bool, device=held.device)
        present[0, :known] = False
        present[0, columns] = True
        return Place(known, 0, present)

    def _agree(self, call: Call, columns: Tensor) -> bool:
        """Whether the call's first keys are those of the columns ``columns``, looked at in some places."""
        past = len(columns)
        places = torch.linspace(0, past - 1, min(past, _SAMPLE), dtype=torch.float64).long().unique()
        theirs = call.k.detach().index_select(2, places.to(call.k.device))
        theirs = theirs if self._kv is None else theirs.index_select(1, self._kv)
        ours = self._k.at(columns[places]).to(theirs.device)
        return bool(((ours == theirs) | (ours.isnan() & theirs.isnan())).all())


def _cat(positions: list[Tensor]) -> Tensor:
    batch = max(one.shape[0] for one in positions)
    return torch.cat([one.expand(batch, -1) for one in positions], 1)


def _sizes(call: Call) -> tuple[object, ...]:
    return call.q.shape[:2], call.q.shape[3], call.k.shape[:2], call.q.dtype, call.q.device


def _identity(x: Tensor) -> tuple[int, torch.Size]:
    return x.data_ptr(), x.shape


def _loose(x: Tensor) -> bool:
    """Whether holding ``x`` holds much more memory than its own."""
    return x.untyped_storage().nbytes() > _LOOSE * x.numel() * x.element_size()


def _reach(allowed: Tensor) -> int:
    """One more than the last column that is visible to anyone."""
    columns = allowed.flatten(0, -2).any(0).nonzero()
    return int(columns.max()) + 1 if columns.numel() else 0

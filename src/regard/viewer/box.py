"""One box of one head's weights as a call of its own, so that the compiled kernels can pool it or sum it."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates, Frame
from regard._dispatch import backend
from regard.backends.base import Gathered
from regard.masks import Mask
from regard.masks.intervals import RowIntervals
from regard.scores import Bias, ScoreModification, Softcap


class _Box(Mask):
    """What the rows of a box see of its columns."""

    def __init__(self, seen: RowIntervals) -> None:
        self._seen = seen

    def allowed(self, at: Coordinates) -> Tensor:
        start, stop = (x[0, at.i] for x in (self._seen.start, self._seen.stop))
        j = at.j[..., None]
        return ((start <= j) & (j < stop)).any(-1)

    def intervals(self, frame: Frame) -> RowIntervals:
        return self._seen

    def _key(self) -> Hashable:
        return id(self._seen)

    def __repr__(self) -> str:
        return "the mask of a box"


def box(
    call: Call, q: Tensor, k: Tensor, place: tuple[int, int], rows: slice, cols: slice, seen: RowIntervals
) -> Call | None:
    """The box as a call, or None where its score changes are not known to be the same there.

    Args:
        call: that the box is of.
        q: the head's queries, ``(1, 1, Lq, D)``.
        k: its keys, ``(1, 1, Lk, D)``.
        place: batch entry and query head.
        rows: of the box.
        cols: of the box.
        seen: by the rows of the box, of the columns of the call.
    """
    mods = [_moved(mod, place, rows, cols) for mod in call.score_mods]
    known = tuple(mod for mod in mods if mod is not None)
    if len(known) < len(mods):
        return None
    height, width = rows.stop - rows.start, cols.stop - cols.start
    start, stop = ((x - cols.start).clamp(0, width) for x in (seen.start, seen.stop))
    keys = k[:, :, cols]
    return call.with_(
        q=q[:, :, rows], k=keys, v=keys[..., :1], mask=_Box(RowIntervals(start, stop, width)), score_mods=known,
        sinks=None, dropout_p=0.0, seed=None, frame=Frame(1, 1, height, width, device=q.device), lead=(1,), stats=(),
    )  # fmt: skip


def within(seen: RowIntervals, rows: slice, first: int, stop: int) -> RowIntervals:
    """What some rows see of the columns from ``first`` to before ``stop``."""
    part = RowIntervals(seen.start[:, rows], seen.stop[:, rows], seen.k_len)
    if first <= 0 and stop >= seen.k_len:
        return part
    low, high = (torch.full((1, 1, 1), x, device=seen.start.device) for x in (first, max(first, stop)))
    return part.intersect(RowIntervals(low, high, seen.k_len))


def pool(one: Call, lse: Tensor, factors: Tensor, high: int, wide: int, planes: Tensor) -> bool:
    """Sums, greatest weights and greatest ``w_ij f_i`` of bins of ``high`` rows and ``wide`` columns.

    False, and nothing done, where the compiled kernels cannot do it.

    Args:
        one: the box, whose first row and column begin a bin.
        lse: of its rows, 0 for rows that see nothing.
        factors: ``f`` of its rows, at least 0.
        high: rows of a bin.
        wide: columns of a bin.
        planes: to be filled, float32 ``(3, n, m)``.
    """
    mass, peak, lift = planes[:, None, None]
    wanted = Gathered(
        mass=mass,
        peak=peak,
        lift=(lift, factors.float()[None, None].contiguous()),
        extent=(planes.shape[1] * high, planes.shape[2] * wide),
    )
    return backend("native").gather(one, lse.float()[None, None], wanted)


def summed(one: Call) -> Tensor | None:
    """``lse`` of the rows of a box over its columns, or None where the compiled kernels cannot do it."""
    native, one = backend("native"), one.with_(wants_lse=True)
    if native.missing() is not None or native.unsupported(one):
        return None
    lse = native.run(one).lse
    assert lse is not None
    return lse[0, 0].double()


def spread(one: Call, even: Tensor, high: int, wide: int) -> Tensor:
    """The sum over a bin of ``even_i`` at each pair that row ``i`` sees, ``(n, m)``, without a visit to any pair.

    Args:
        one: the box, whose first row and column begin a bin.
        even: of its rows, float64.
        high: rows of a bin.
        wide: columns of a bin.
    """
    seen = one.mask.intervals(one.frame)
    assert seen is not None
    start, stop = seen.start[0], seen.stop[0]
    n, m = -(-len(even) // high), -(-seen.k_len // wide)
    row = (torch.arange(len(even)) // high)[:, None].expand(start.shape)
    first, last = start // wide, stop // wide
    share = even[:, None].expand(start.shape)
    # An interval fills the bins between those of its ends; at each end goes what is over or under a whole bin.
    whole, rest = (torch.zeros(n, m + 2, dtype=torch.float64) for _ in range(2))
    whole.index_put_((row, first + 1), share * wide, accumulate=True)
    whole.index_put_((row, last), -share * wide, accumulate=True)
    rest.index_put_((row, first), share * ((first + 1) * wide - start), accumulate=True)
    rest.index_put_((row, last), share * (stop - last * wide), accumulate=True)
    return (whole.cumsum(1) + rest)[:, :m].clamp(min=0).float()


def _moved(mod: ScoreModification, place: tuple[int, int], rows: slice, cols: slice) -> ScoreModification | None:
    """A score change as the box has it."""
    if isinstance(mod, Softcap):
        return mod
    if not isinstance(mod, Bias):
        return None
    bias = mod.bias.detach()
    bias = bias.reshape((1,) * (4 - bias.ndim) + tuple(bias.shape))
    for dim, part in enumerate((*(slice(n, n + 1) for n in place), rows, cols)):
        if bias.shape[dim] > 1:
            bias = bias[(slice(None),) * dim + (part,)]
    return Bias(bias)

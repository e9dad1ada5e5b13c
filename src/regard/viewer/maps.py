"""Maps of one head computed in Python: any part at any zoom, from q, k and lse.

The same four planes, and the same bins, as ``web/src/head.ts``: ``mass`` (mean over the queries of a bin, sum over its
keys), ``max``, ``lift`` (largest weight times the number of keys that its query sees) and ``uniform`` (the mass of an
even spread, 0 where nothing is visible).
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from regard._call import Call
from regard.backends.tile import scores
from regard.masks import Everything
from regard.masks.intervals import RowIntervals
from regard.scores import Bias, ScoreMod
from regard.viewer import box
from regard.viewer.subject import Layer

PLANES = ("mass", "max", "lift", "uniform")
_ROWS, _COLS = 256, 1024
"""Rows and columns of a step: its scores stay in a processor's cache."""

_WELL_KNOWN = 0.02
"""Where less than this is left of a row without its sink, the rest is summed anew instead of subtracted."""

_LOG2_E = 1 / math.log(2)


class HeadMaps:
    """The maps of one head of a layer.

    Args:
        layer: supplies the call and its lse.
        head: which head, by place.
    """

    def __init__(self, layer: Layer, head: int) -> None:
        self.layer = layer
        self.head = head
        self.rows, self.cols = layer.rows, layer.cols
        call, entry = layer.call, layer.entry
        self._places = slice(entry, entry + 1), slice(head, head + 1)
        self._call = call
        self._unmasked = call.with_(mask=Everything())
        self._totals: dict[int, tuple[Tensor, Tensor]] = {}

    @cached_property
    def _q(self) -> Tensor:
        return self._call.q[self._places].detach()

    @cached_property
    def _k(self) -> Tensor:
        entry, _ = self._places
        own = self.head // self._call.group
        return self._call.k[entry, own : own + 1].detach()

    @cached_property
    def _seen(self) -> RowIntervals | None:
        """The intervals of columns of each row, ``(1, rows, n)``."""
        found = self._call.mask.intervals(self._call.frame)
        if found is None:
            return None
        own = self.layer.entry if found.start.shape[0] > 1 else 0
        entry = slice(own, own + 1)
        return RowIntervals(found.start[entry], found.stop[entry], found.k_len).narrow()

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor] | None:
        """First and last column of each interval of each row, ``(rows, n)``."""
        return None if self._seen is None else (self._seen.start[0], self._seen.stop[0])

    @cached_property
    def _hides_by_score(self) -> bool:
        """Whether a score change may hide a pair by ``-inf``."""
        mods = self._call.score_mods
        return any(isinstance(m, ScoreMod) or (isinstance(m, Bias) and bool(m.bias.isinf().any())) for m in mods)

    def coverage(self, rows: slice, cols: slice) -> bool | None:
        """True where the mask shows all of a box, False where nothing, None in between or where it is not known."""
        if self._ends is None:
            return None
        start, stop = (x[rows] for x in self._ends)
        if bool(((start.amax(0) <= cols.start) & (stop.amin(0) >= cols.stop)).any()):
            return True
        return None if bool(((start < cols.stop) & (stop > cols.start)).any()) else False

    def pairs(self) -> Tensor:
        """How many pairs there are to compute in each row, float64; all of them where the mask has no closed form."""
        if self._ends is None:
            return torch.full((self.rows,), float(self.cols), dtype=torch.float64)
        start, stop = self._ends
        return (stop - start).sum(1).double().cpu()

    def _visible(self, rows: slice, cols: slice) -> Tensor:
        if self._ends is None:
            at = self._call.frame.tile(rows, cols, *self._places)
            shape = (1, 1, rows.stop - rows.start, cols.stop - cols.start)
            return self._call.mask.allowed(at).expand(shape)[0, 0]
        j = torch.arange(cols.start, cols.stop, device=self._q.device)
        start, stop = (x[rows, :, None] for x in self._ends)
        return ((start <= j) & (j < stop)).any(1)

    def _scores(self, rows: slice, cols: slice, *, coverage: bool | None) -> Tensor:
        """Final scores of a box, ``-inf`` where hidden."""
        dtype = self._call.accumulation_dtype
        q, k = self._q[:, :, rows].to(dtype), self._k[:, :, cols].to(dtype)
        at = self._call.frame.tile(rows, cols, *self._places)
        s = scores(self._unmasked, at, q, k)[0, 0]
        return s if coverage else s.masked_fill(~self._visible(rows, cols), -torch.inf)

    def totals(self, rows: slice, hide: int) -> tuple[Tensor, Tensor]:
        """``lse`` (0 for rows that see nothing) and the number of visible keys, with the first columns left out."""
        if hide not in self._totals:
            lse = torch.full((self.rows,), torch.nan, dtype=torch.float64)
            self._totals[hide] = lse, torch.zeros(self.rows, dtype=torch.int64)
        lse, seen = self._totals[hide]
        unknown = lse[rows].isnan().nonzero().flatten() + rows.start
        for first in range(0, len(unknown), _ROWS):
            here = unknown[first : first + _ROWS]
            if len(here) == int(here[-1] - here[0]) + 1:
                part = slice(int(here[0]), int(here[-1]) + 1)
                lse[part], seen[part] = self._of_rows(part, hide)
            else:
                for row in here.tolist():
                    part = slice(row, row + 1)
                    lse[part], seen[part] = self._of_rows(part, hide)
        return lse[rows], seen[rows]

    def _of_rows(self, rows: slice, hide: int) -> tuple[Tensor, Tensor]:
        own = self.layer.lse[self.layer.entry, self.head, rows].detach().double().cpu()
        own = torch.where(own == -torch.inf, 0, own)
        seen = self._count(rows, hide)
        if hide == 0:
            return own, seen
        first = slice(0, min(hide, self.cols))
        gone = torch.exp(self._scores(rows, first, coverage=None).double().cpu() - own[:, None]).sum(1)
        if self._call.sinks is not None:
            gone = gone + torch.exp(self._call.sinks[self.head].detach().double().cpu() - own)
        left = 1 - gone
        lse = own + left.clamp(min=torch.finfo(torch.float64).tiny).log()
        doubtful = (left < _WELL_KNOWN) & (seen > 0)
        if doubtful.any():
            again = self._summed(rows, first.stop)
            lse = torch.where(doubtful, again, lse)
        return torch.where(seen > 0, lse, 0), seen

    def _summed(self, rows: slice, first: int) -> Tensor:
        """``lse`` of rows over the columns from ``first`` on, by going over them."""
        one = self._box(rows, slice(first, self.cols), first)
        known = None if one is None else box.summed(one)
        if known is not None:
            return known
        total = torch.full((rows.stop - rows.start,), -torch.inf, dtype=torch.float64)
        for col in range(first, self.cols, 4 * _COLS):
            cols = slice(col, min(col + 4 * _COLS, self.cols))
            coverage = self.coverage(rows, cols)
            if coverage is not False:
                total = torch.logaddexp(total, self._scores(rows, cols, coverage=coverage).double().cpu().logsumexp(1))
        return total

    def _count(self, rows: slice, hide: int) -> Tensor:
        """How many keys from ``hide`` on each row sees."""
        if self._ends is not None and not self._hides_by_score:
            start, stop = (x[rows].clamp(min=hide) for x in self._ends)
            return (stop - start).clamp(min=0).sum(1).cpu()
        seen = torch.zeros(rows.stop - rows.start, dtype=torch.int64)
        for col in range(hide, self.cols, _COLS):
            cols = slice(col, min(col + _COLS, self.cols))
            seen += (self._scores(rows, cols, coverage=None) > -torch.inf).sum(1).cpu()
        return seen

    @torch.no_grad()
    def weights(self, rows: slice, cols: slice, hide: int = 0) -> Tensor:
        """Weights of a box, float32 ``(rows, cols)``; NaN where hidden."""
        lse, seen = self.totals(rows, hide)
        s = self._scores(rows, cols, coverage=None).float().cpu()
        w = torch.exp(s - lse.float()[:, None])
        j = torch.arange(cols.start, cols.stop)
        return w.masked_fill((s == -torch.inf) | (j < hide) | (seen == 0)[:, None], torch.nan)

    @torch.no_grad()
    def pool(self, rows: slice, cols: slice, zr: int, zc: int, hide: int = 0) -> Tensor:
        """The four planes of a box in bins of ``2**zr`` rows and ``2**zc`` columns, float32 ``(4, n, m)``.

        The box starts at a bin; its last bins may be cut off by the end of the matrix.
        """
        high, wide = 1 << zr, 1 << zc
        found = self._compiled(rows, cols, high, wide, hide)
        if found is not None:
            return found
        bins = -(-(rows.stop - rows.start) // high), -(-(cols.stop - cols.start) // wide)
        out = torch.zeros(4, *bins)
        height = max(_ROWS // high, 1) * high if high <= _ROWS else _ROWS
        for r0 in range(rows.start, rows.stop, height):
            part = slice(r0, min(r0 + height, rows.stop))
            by_col = self._by_column(part, cols, zc, bins[1], hide)
            first = (r0 - rows.start) >> zr
            self._add_rows(out[:, first:], by_col, part, high)
        return out

    def _box(self, rows: slice, cols: slice, first: int) -> Call | None:
        """A box from column ``first`` on as a call of its own, where intervals tell all about what it shows."""
        if self._seen is None or self._hides_by_score or cols.start >= cols.stop:
            return None
        seen = box.within(self._seen, rows, max(first, cols.start), cols.stop)
        return box.box(self._call, self._q, self._k, (self.layer.entry, self.head), rows, cols, seen)

    def _compiled(self, rows: slice, cols: slice, high: int, wide: int, hide: int) -> Tensor | None:
        """`pool` by the compiled kernels, or None where they cannot do it."""
        planes = torch.zeros(4, -(-(rows.stop - rows.start) // high), -(-(cols.stop - cols.start) // wide))
        if self._ends is not None:
            cols = slice(cols.start, min(cols.stop, int(self._ends[1][rows].amax())))
        one = self._box(rows, cols, hide)
        if one is None:
            return None
        lse, seen = self.totals(rows, hide)
        covered = planes[:, :, : -(-(cols.stop - cols.start) // wide)]
        if not box.pool(one, lse, seen, high, wide, covered[:3]):
            return None
        even = torch.where(seen > 0, 1 / seen.clamp(min=1), 0).double()
        covered[3] = box.spread(one, even, high, wide)
        covered[::3] *= self._share(rows.start, planes.shape[1], high)[:, None]
        return planes

    def _share(self, first: int, bins: int, high: int) -> Tensor:
        """What a row counts for in each of its bins, the first of which begins at row ``first``."""
        start = torch.arange(bins) * high + first
        return 1.0 / ((start + high).clamp(max=self.rows) - start)

    def _add_rows(self, out: Tensor, by_col: Tensor, rows: slice, high: int) -> None:
        """Bring rows pooled by column into their bins, which start at the first row of ``rows`` or before it."""
        count = rows.stop - rows.start
        start = rows.start // high * high
        whole = torch.arange(rows.start, rows.stop) // high
        share = 1.0 / ((whole + 1) * high).clamp(max=self.rows).sub(whole * high)
        by_col[0] *= share[:, None]
        by_col[3] *= share[:, None]
        if high <= count or rows.start == start:
            padded = torch.nn.functional.pad(by_col, (0, 0, 0, -count % high))
            grouped = padded.unflatten(1, (-1, min(high, padded.shape[1])))
            n = grouped.shape[1]
            out[0, :n] += grouped[0].sum(1)
            out[3, :n] += grouped[3].sum(1)
            out[1:3, :n] = torch.maximum(out[1:3, :n], grouped[1:3].amax(2))
            return
        out[0, 0] += by_col[0].sum(0)
        out[3, 0] += by_col[3].sum(0)
        out[1:3, 0] = torch.maximum(out[1:3, 0], by_col[1:3].amax(1))

    def _by_column(self, rows: slice, cols: slice, zc: int, bins: int, hide: int) -> Tensor:
        """The planes of some rows, pooled over columns only: ``(4, rows, bins)``."""
        lse, seen = self.totals(rows, hide)
        wide = 1 << zc
        out = torch.zeros(4, rows.stop - rows.start, bins)
        even = torch.where(seen > 0, 1 / seen.clamp(min=1), 0).float()[:, None]
        queries = None if self._call.score_mods else self._prepared(rows, lse)
        width = max(_COLS // wide, 1) * wide
        for c0 in range(cols.start, cols.stop, width):
            part = slice(c0, min(c0 + width, cols.stop))
            coverage = self.coverage(rows, part)
            if coverage is False or part.stop <= hide:
                continue
            shown = coverage is True and part.start >= hide and not self._hides_by_score
            if queries is not None:
                w = (queries @ self._prepared_keys[part].T).exp2_()
                visible = None if shown else self._visible(rows, part).cpu()
            else:
                s = self._scores(rows, part, coverage=coverage).float()
                w = (s - lse.float().to(s.device)[:, None]).exp_()
                visible = None if shown else (s > -torch.inf).cpu()
            w = w.cpu()
            if visible is not None:
                if part.start < hide:
                    visible = visible & (torch.arange(part.start, part.stop) >= hide)
                w = torch.where(visible, w, 0)
            first = (c0 - cols.start) >> zc
            n = -(-(part.stop - part.start) // wide)
            spare = -(part.stop - part.start) % wide
            grouped = (torch.nn.functional.pad(w, (0, spare)) if spare else w).unflatten(1, (n, wide))
            out[0, :, first : first + n] = grouped.sum(2)
            out[1, :, first : first + n] = grouped.amax(2)
            if visible is None:
                counted = torch.full((n,), float(wide))
                counted[-1] -= spare
                out[3, :, first : first + n] = counted * even
            else:
                padded = torch.nn.functional.pad(visible, (0, spare)) if spare else visible
                out[3, :, first : first + n] = padded.unflatten(1, (n, wide)).sum(2) * even
        torch.mul(out[1], seen.float()[:, None], out=out[2])
        return out

    def _prepared(self, rows: slice, lse: Tensor) -> Tensor:
        """Queries such that one product with the prepared keys is ``log2`` of the weights."""
        q = self._q[0, 0, rows].float() * (self._call.scale * _LOG2_E)
        return torch.cat([q, (-_LOG2_E * lse).float().to(q.device)[:, None]], 1)

    @cached_property
    def _prepared_keys(self) -> Tensor:
        k = self._k[0, 0].float()
        return torch.cat([k, k.new_ones(len(k), 1)], 1)


def coarser(planes: Tensor, rows: int, cols: int, z: int, total: int) -> Tensor:
    """``planes (4, n, m)`` at ``2**rows`` times fewer rows and ``2**cols`` times fewer columns.

    Args:
        planes: what to pool.
        rows: levels up along rows.
        cols: levels up along columns.
        z: bins of ``planes`` hold ``2**z`` rows,
        total: of so many rows.
    """
    if not rows and not cols:
        return planes
    n, m = planes.shape[1:]
    first = torch.arange(n) << z
    own = ((first + (1 << z)).clamp(max=total) - first).float()
    above = (first >> (rows + z)) << (rows + z)
    share = own / ((above + (1 << (rows + z))).clamp(max=total) - above)
    bins = 1 << rows, 1 << cols
    weighed = torch.nn.functional.pad(planes[::3] * share[:, None], (0, -m % bins[1], 0, -n % bins[0]))
    mass, uniform = torch.nn.functional.avg_pool2d(weighed, bins, divisor_override=1)
    peaks = torch.nn.functional.max_pool2d(planes[1:3], bins, ceil_mode=True)
    return torch.stack([mass, *peaks, uniform])

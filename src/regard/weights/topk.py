"""The largest weights of each row, found in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from regard._call import Call
from regard.weights.stream import Reduction, Tile


class Top(NamedTuple):
    """The largest weights of each row.

    Attributes:
        values: ``(…, H, Lq, k)``, largest first; 0 where a row has fewer visible keys.
        indices: int64 ``(…, H, Lq, k)``, their columns; -1 where a row has fewer visible keys.
    """

    values: Tensor
    indices: Tensor


class TopK(Reduction):
    """Values and columns of the ``k`` largest weights of each row, largest first, equal scores by lower column.

    Ranked by score, of which the weight is a growing function, so that weights too small for the dtype keep their
    order. A row with fewer visible keys ends with weight 0 at column -1.
    """

    def __init__(self, call: Call, k: int) -> None:
        shape = (*call.q.shape[:3], k)
        self._k = k
        self.scores = call.q.new_full(shape, -torch.inf, dtype=call.accumulation_dtype)
        self.columns = torch.full(shape, -1, dtype=torch.int64, device=call.q.device)

    def update(self, tile: Tile) -> None:
        best, columns = tile.of_rows(self.scores), tile.of_rows(self.columns)
        scores, places = _top(tile.s, min(self._k, tile.s.shape[-1]))
        # Earlier tiles lie to the left and come first, so a stable sort keeps the lower column of equal scores, and of
        # equal scores of -inf the column -1 that was there before any tile.
        scores, order = torch.cat([best, scores], -1).sort(dim=-1, descending=True, stable=True)
        best.copy_(scores[..., : self._k])
        columns.copy_(torch.cat([columns, places + tile.cols.start], -1).gather(-1, order[..., : self._k]))

    def finish(self, lse: Tensor) -> Tensor:
        return torch.exp(self.scores - lse[..., None])


def _top(s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of the last dim, largest first, equal ones by lower place."""
    scores, places = s.topk(k, sorted=False)
    # Of several equal scores at the edge, topk may have taken any.
    edge = scores.amin(-1, keepdim=True)
    torn = ((s >= edge).sum(-1) > k) & (edge[..., 0] > -torch.inf)
    if bool(torn.any()):
        places[torn] = s[torn].sort(dim=-1, descending=True, stable=True).indices[..., :k]
    places = places.sort(-1).values
    scores, order = s.gather(-1, places).sort(dim=-1, descending=True, stable=True)
    return scores, places.gather(-1, order)

"""Heads that find an earlier occurrence of the present token, and those that look at what followed it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.head_scores.base import HeadScore, Parts, Weighted
from regard.head_scores.material import Material
from regard.head_scores.offset import diagonal
from regard.weights.stream import Reduction, Tile


class _OnEqualTokens(HeadScore):
    """``mean_i Σ_j A_ij P_ij`` where ``P`` compares the token of the query with one beside the key."""

    _latest = -1
    """The last key that counts, relative to the query."""

    def missing(self, of: Material) -> str | None:
        if of.crosses:
            return "queries and keys are of two sequences"
        return "the tokens' ids are not known" if of.ids is None else None

    def parts(self, of: Material) -> dict[str, Callable[[], Reduction]]:
        assert of.ids is not None
        batch = of.shape[0]
        query = torch.where(of.own >= 0, of.ids.gather(1, of.own.clamp(min=0).expand(batch, -1)), -1)
        key = self._compared(of.ids)

        def factor(tile: Tile) -> Tensor | None:
            same = query[tile.batch, tile.rows, None] == key[tile.batch, None, tile.cols]
            before = tile.at.k - tile.at.q <= self._latest
            found = same[:, None] & before
            return found if bool(found.any()) else None

        return {self.name: lambda: Weighted(of.call, factor)}

    def value(self, of: Material, parts: Parts) -> Tensor:
        return of.over_rows(parts[self.name])

    @abstractmethod
    def _compared(self, ids: Tensor) -> Tensor:
        """The token that is compared with the query's, for each key ``(B, Lk)``; negative for none."""


@dataclass(frozen=True)
class DuplicateToken(_OnEqualTokens):
    """``mean_i Σ_{j < i: t_j = t_i} A_ij``: duplicate-token heads (Wang et al. 2022, arXiv:2211.00593).

    Needs the pass.
    """

    title = "duplicate_token"

    def _compared(self, ids: Tensor) -> Tensor:
        return ids


@dataclass(frozen=True)
class PrefixMatching(_OnEqualTokens):
    """``mean_i Σ_{j ≤ i: t_{j-1} = t_i} A_ij``: induction on natural text, by what followed the present token before
    (prefix matching, Olsson et al. 2022, arXiv:2209.11895). Needs the pass.
    """

    title = "prefix_matching"
    _latest = 0

    def _compared(self, ids: Tensor) -> Tensor:
        return torch.cat([torch.full_like(ids[:, :1], -2), ids[:, :-1]], 1)


@dataclass(frozen=True)
class Induction(HeadScore):
    """``mean_i A_{i, i-(N-1)}`` over the second half of ``[BOS, r, r]``, ``r`` of ``N`` random tokens (Olsson et al.
    2022, arXiv:2209.11895). Fast: one diagonal.

    Only for such a text; `induction_probe` makes one.
    """

    title = "induction"

    def missing(self, of: Material) -> str | None:
        if of.crosses or of.ids is None:
            return "the tokens' ids are not known"
        length = of.ids.shape[1]
        count = (length - 1) // 2
        repeated = length % 2 == 1 and count > 1 and torch.equal(of.ids[:, 1 : 1 + count], of.ids[:, 1 + count :])
        return None if repeated else "the text is no [BOS, r, r]; regard.head_scores.induction_probe makes one"

    def value(self, of: Material, parts: Parts) -> Tensor:
        assert of.ids is not None
        count = (of.ids.shape[1] - 1) // 2
        there, weights = diagonal(of, count - 1)
        second = of.own > count
        return of.over_rows(weights, (there & second)[:, None])


def induction_probe(vocabulary: int, length: int = 64, batch: int = 4, *, bos: int = 0, seed: int = 0) -> Tensor:
    """Ids ``[BOS, r, r]``, int64 ``(batch, 1 + 2 length)``, ``r`` random without ``bos``, for `Induction`.

    >>> induction_probe(50, 3, 1)
    tensor([[ 0, 12, 39, 43, 12, 39, 43]])
    """
    generator = torch.Generator().manual_seed(seed)
    r = torch.randint(0, vocabulary - 1, (batch, length), generator=generator)
    r = r + (r >= bos)
    return torch.cat([torch.full((batch, 1), bos), r, r], 1)

"""One recorded layer: what is needed to compute any of its attention weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from regard._call import Call, make_call
from regard._errors import describe
from regard.masks import Mask
from regard.scores import ScoreModification
from regard.weights import AttentionWeights

Kind = Literal["self", "encoder", "decoder", "cross"]


@dataclass(frozen=True, eq=False, repr=False)
class Layer:
    """Queries, keys and logsumexp of one attention layer in one run of a model, without its values.

    Attributes:
        name: of the module in the model, followed by ``#2`` and so on where one forward calls it several times.
        index: the layer's true number in the model; layers without attention count.
        kind: ``"self"``; ``"encoder"``, ``"decoder"`` or ``"cross"`` in an encoder-decoder model.
        heads: the true numbers of the recorded query heads.
        q: ``(B, H, Lq, D)``, in the model's dtype.
        k: ``(B, Hkv, Lk, D)``; of grouped heads each key head once.
        lse: ``(B, H, Lq)``, natural log, after score changes, mask and sinks.
        mask: who may attend to whom.
        score_mods: score changes in order.
        scale: factor of the dot products.
        sinks: ``(H,)`` or None.
        q_positions: int64 ``(1 or B, Lq)``, or None where the last query stands at the last key.
        k_positions: int64 ``(1 or B, Lk)``, or None for ``0 … Lk - 1``.
        value_norms: ``‖v_j W_O^h‖``, float32 ``(B, H, Lk)``; ``‖v_j‖`` where the module's output projection is not
            known; None if values were not looked at.
    """

    name: str
    index: int
    kind: Kind
    heads: tuple[int, ...]
    q: Tensor
    k: Tensor
    lse: Tensor
    mask: Mask
    score_mods: tuple[ScoreModification, ...]
    scale: float
    sinks: Tensor | None = None
    q_positions: Tensor | None = None
    k_positions: Tensor | None = None
    value_norms: Tensor | None = None

    @cached_property
    def call(self) -> Call:
        """The attention call, values left out."""
        nothing = self.q.new_zeros(()).expand(*self.k.shape[:3], 1)
        return make_call(
            self.q,
            self.k,
            nothing,
            mask=self.mask,
            score_mod=self.score_mods,
            scale=self.scale,
            sinks=self.sinks,
            q_positions=self.q_positions,
            k_positions=self.k_positions,
        )

    @cached_property
    def weights(self) -> AttentionWeights:
        """The weights ``(B, H, Lq, Lk)``, computed where they are read."""
        with torch.no_grad():
            return AttentionWeights(self.call, self.lse)

    @property
    def rows(self) -> Tensor:
        """The position of each query, int64 ``(1 or B, Lq)``."""
        return self.call.frame.q_pos

    @property
    def nbytes(self) -> int:
        """Bytes of the queries, keys and logsumexp."""
        return sum(x.numel() * x.element_size() for x in (self.q, self.k, self.lse))

    def __repr__(self) -> str:
        heads = f"heads={list(self.heads)}" if self.heads != tuple(range(len(self.heads))) else ""
        parts = [f"q {describe(self.q)}", f"k {tuple(self.k.shape)}", f"mask={self.mask!r}", heads]
        return f"<Layer {self.index} {self.name!r}, {self.kind}: {', '.join(filter(None, parts))}>"

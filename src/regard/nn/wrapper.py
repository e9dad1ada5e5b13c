"""The fifth rung: several heads, one after another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard.masks.base import checked_int
from regard.nn.causal import CausalAttention
from regard.nn.steps import Steps


class MultiHeadAttentionWrapper(nn.Module):
    """Several `CausalAttention` heads side by side: each looks for something else, their results are concatenated.

    `MultiHeadAttention` computes the same with all heads in one product.

    Args:
        d_in: features of a token.
        d_out: features of one head's context vector.
        context_length: the most tokens the module takes.
        dropout: probability of dropping a weight in training.
        num_heads: number of heads.
        qkv_bias: whether the heads' linear layers have a bias.
        backend: as in `regard.attention`.

    Attributes:
        heads: the `CausalAttention` modules.

    Shape:
        ``(…, L, d_in)`` to ``(…, L, num_heads * d_out)``, ``L <= context_length``.

    Raises:
        KindError: a size that is no int, a dropout that is no number.
        ArgumentError: a size below 1, a dropout outside [0, 1).
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,  # noqa: FBT001  (the book's signature)
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias, backend=backend)
            for _ in range(checked_int("num_heads", num_heads, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """The heads' context vectors ``(…, L, num_heads * d_out)`` of the tokens ``x (…, L, d_in)``.

        Raises:
            KindError: no floating-point tensor.
            ShapeError: fewer than 2 dims, not ``d_in`` features, more than ``context_length`` tokens.
        """
        return torch.cat([head(x) for head in self.heads], dim=-1)

    def steps(self, x: Tensor) -> Steps:
        """Every number between ``x`` and `forward`'s result in eval mode, the heads stacked in the dim ``H``."""
        steps = [head.steps(x) for head in self.heads if isinstance(head, CausalAttention)]
        stacked = {name: torch.stack([getattr(one, name) for one in steps], dim=-3) for name in Steps.PER_HEAD}
        return Steps(**stacked, output=torch.cat([one.output for one in steps], dim=-1))

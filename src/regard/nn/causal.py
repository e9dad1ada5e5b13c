"""The fourth rung: no token sees its future, and some weights are dropped in training."""

from __future__ import annotations

from torch import Tensor, nn

from regard._call import check_dropout
from regard._observe import attend
from regard.masks import Causal
from regard.masks.base import checked_int
from regard.nn.checks import check_context_length, check_tokens
from regard.nn.steps import Steps, dense_steps


class CausalAttention(nn.Module):
    """Self-attention for language models: scores of the future are hidden *before* the one softmax.

    Hiding them after it would leave the weights of visible tokens divided by a sum over hidden ones. No mask of
    ``context_length × context_length`` is stored: `Causal` is a rule.

    Args:
        d_in: features of a token.
        d_out: features of a query, a key, a value and a context vector.
        context_length: the most tokens the module takes.
        dropout: probability of dropping a weight in training; `regard.attention` says which.
        qkv_bias: whether the three layers have a bias.
        backend: as in `regard.attention`.

    Attributes:
        W_query: linear layer ``d_in → d_out``.
        W_key: likewise.
        W_value: likewise.

    Shape:
        ``(…, L, d_in)`` to ``(…, L, d_out)``, ``L <= context_length``.

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
        qkv_bias: bool = False,  # noqa: FBT001  (the book's signature)
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_dropout(dropout, "dropout")
        self.d_in = checked_int("d_in", d_in, 1)
        self.d_out = checked_int("d_out", d_out, 1)
        self.context_length = checked_int("context_length", context_length, 1)
        self.dropout = float(dropout)
        self.backend = backend
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Context vectors ``(…, L, d_out)`` of the tokens ``x (…, L, d_in)``.

        Raises:
            KindError: no floating-point tensor.
            ShapeError: fewer than 2 dims, not ``d_in`` features, more than ``context_length`` tokens.
        """
        q, k, v = self._project(x)
        dropout_p = self.dropout if self.training else 0.0
        return attend(self, q, k, v, mask=Causal(), dropout_p=dropout_p, backend=self.backend).squeeze(-3)

    def steps(self, x: Tensor) -> Steps:
        """Every number between ``x`` and `forward`'s result in eval mode."""
        return dense_steps(*self._project(x), lambda context: context.squeeze(-3), mask=Causal()).one_head()

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_tokens("x", x, self.d_in)
        check_context_length(x, self.context_length)
        q, k, v = self.W_query(x), self.W_key(x), self.W_value(x)
        return q.unsqueeze(-3), k.unsqueeze(-3), v.unsqueeze(-3)

    def extra_repr(self) -> str:
        return f"context_length={self.context_length}, dropout={self.dropout}"

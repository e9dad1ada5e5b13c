"""The second and third rung: learned queries, keys and values, as bare matrices and as linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard._observe import attend
from regard.masks.base import checked_int
from regard.nn.checks import check_tokens
from regard.nn.steps import Steps, dense_steps


class SelfAttentionV1(nn.Module):
    """Self-attention with three weight matrices: ``softmax(Q Kᵀ / √d_out) V`` with ``Q = x W_query`` and so on.

    Args:
        d_in: features of a token.
        d_out: features of a query, a key, a value and a context vector.
        backend: as in `regard.attention`.

    Attributes:
        W_query: parameter ``(d_in, d_out)``, uniform in [0, 1).
        W_key: likewise.
        W_value: likewise.

    Shape:
        ``(…, L, d_in)`` to ``(…, L, d_out)``.

    Raises:
        KindError: a size that is no int.
        ArgumentError: a size below 1.
    """

    def __init__(self, d_in: int, d_out: int, *, backend: str | None = None) -> None:
        super().__init__()
        self.d_in = checked_int("d_in", d_in, 1)
        self.d_out = checked_int("d_out", d_out, 1)
        self.backend = backend
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """Context vectors ``(…, L, d_out)`` of the tokens ``x (…, L, d_in)``.

        Raises:
            KindError: no floating-point tensor.
            ShapeError: fewer than 2 dims, or not ``d_in`` features.
        """
        return attend(self, *self._project(x), backend=self.backend).squeeze(-3)

    def steps(self, x: Tensor) -> Steps:
        """Every number between ``x`` and `forward`'s result."""
        return dense_steps(*self._project(x), lambda context: context.squeeze(-3)).one_head()

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_tokens("x", x, self.d_in)
        q, k, v = x @ self.W_query, x @ self.W_key, x @ self.W_value
        return q.unsqueeze(-3), k.unsqueeze(-3), v.unsqueeze(-3)

    def extra_repr(self) -> str:
        return f"{self.d_in}, {self.d_out}"


class SelfAttentionV2(nn.Module):
    """`SelfAttentionV1` with `torch.nn.Linear` layers, which start from a better scale and may have a bias.

    A linear layer keeps its matrix transposed: ``W_query(x) = x W_query.weightᵀ + W_query.bias``. So a V1 and a V2 are
    equal when ``v1.W_query == v2.W_query.weight.T`` and so on.

    Args:
        d_in: features of a token.
        d_out: features of a query, a key, a value and a context vector.
        qkv_bias: whether the three layers have a bias.
        backend: as in `regard.attention`.

    Attributes:
        W_query: linear layer ``d_in → d_out``.
        W_key: likewise.
        W_value: likewise.

    Shape:
        ``(…, L, d_in)`` to ``(…, L, d_out)``.

    Raises:
        KindError: a size that is no int.
        ArgumentError: a size below 1.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        qkv_bias: bool = False,  # noqa: FBT001  (the book's signature)
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.d_in = checked_int("d_in", d_in, 1)
        self.d_out = checked_int("d_out", d_out, 1)
        self.backend = backend
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Context vectors ``(…, L, d_out)`` of the tokens ``x (…, L, d_in)``.

        Raises:
            KindError: no floating-point tensor.
            ShapeError: fewer than 2 dims, or not ``d_in`` features.
        """
        return attend(self, *self._project(x), backend=self.backend).squeeze(-3)

    def steps(self, x: Tensor) -> Steps:
        """Every number between ``x`` and `forward`'s result."""
        return dense_steps(*self._project(x), lambda context: context.squeeze(-3)).one_head()

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_tokens("x", x, self.d_in)
        q, k, v = self.W_query(x), self.W_key(x), self.W_value(x)
        return q.unsqueeze(-3), k.unsqueeze(-3), v.unsqueeze(-3)

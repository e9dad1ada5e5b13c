"""The first rung: self-attention without any weights."""

from __future__ import annotations

from torch import Tensor, nn

from regard._observe import attend
from regard.nn.checks import check_tokens
from regard.nn.steps import Steps, dense_steps


class SimpleSelfAttention(nn.Module):
    """Every token becomes a mixture of all tokens, weighted by how alike they are: ``softmax(x xᵀ) x``.

    Nothing is learned and nothing is scaled: a token's query, key and value are the token itself.

    Args:
        backend: as in `regard.attention`.

    Shape:
        ``(…, L, d)`` to ``(…, L, d)``.

    >>> import torch
    >>> SimpleSelfAttention()(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    tensor([[0.7311, 0.2689],
            [0.2689, 0.7311]])
    """

    def __init__(self, *, backend: str | None = None) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """Context vectors ``(…, L, d)`` of the tokens ``x (…, L, d)``.

        Raises:
            KindError: no floating-point tensor.
            ShapeError: fewer than 2 dims.
        """
        check_tokens("x", x)
        head = x.unsqueeze(-3)
        return attend(self, head, head, head, scale=1.0, backend=self.backend).squeeze(-3)

    def steps(self, x: Tensor) -> Steps:
        """Every number between ``x`` and `forward`'s result."""
        check_tokens("x", x)
        head = x.unsqueeze(-3)
        return dense_steps(head, head, head, lambda context: context.squeeze(-3), scale=1.0).one_head()

"""What every rung asks of its input before it computes anything."""

from __future__ import annotations

from torch import Tensor

from regard._errors import KindError, ShapeError, describe


def check_tokens(name: str, x: Tensor, d_in: int | None = None) -> None:
    """Raise unless ``x`` holds embedded tokens ``(…, L, d_in)``.

    Raises:
        KindError: no floating-point tensor, e.g. token ids.
        ShapeError: fewer than 2 dims, or another number of features.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise KindError(
            f"{name} holds embedded tokens and must be a floating-point tensor: got {describe(x)}. Token ids become "
            "vectors in a torch.nn.Embedding."
        )
    features = "features" if d_in is None else f"d_in = {d_in}"
    if x.ndim < 2 or (d_in is not None and x.shape[-1] != d_in):
        raise ShapeError(f"{name} must be (tokens, {features}) or (batch, tokens, {features}): got {tuple(x.shape)}.")


def check_context_length(x: Tensor, context_length: int, past: int = 0) -> None:
    """Raise when ``x (…, L, d_in)`` and the ``past`` tokens of a cache are more than ``context_length`` tokens.

    Raises:
        ShapeError: more tokens than that.
    """
    tokens = x.shape[-2]
    if past and past + tokens > context_length:
        raise ShapeError(
            f"x has {tokens} tokens and the cache {past} before them, but this module was made with "
            f"context_length={context_length}. Make it with context_length={past + tokens}, or start anew with an "
            "empty cache."
        )
    if tokens > context_length:
        raise ShapeError(
            f"x has {tokens} tokens, but this module was made with context_length={context_length}. Make it with "
            f"context_length={tokens}, or keep the last tokens: x[..., -{context_length}:, :]."
        )

"""`head_view` and `model_view`, for who comes from BertViz with a list of dense attentions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard._inspect import inspect
from regard.scores import Bias
from regard.viewer.frame import frame_html
from regard.viewer.page import MAX_BYTES, embedded
from regard.viewer.subject import subject_of
from regard.weights import AttentionWeights

_SPACES = ("Ġ", "▁")


@dataclass(frozen=True, repr=False)
class View:
    """A page that notebooks show and that can be saved.

    Attributes:
        html: the page.
    """

    html: str

    def save(self, path: str | Path) -> Path:
        """Write the page to a file."""
        path = Path(path)
        path.write_text(self.html, encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        return frame_html(self.html)

    def __repr__(self) -> str:
        return f"<View: {len(self.html) / 1e6:.3g} MB, .save(path)>"


def head_view(
    attention: object,
    tokens: Sequence[str],
    *,
    prettify_tokens: bool = True,
    include_layers: Collection[int] | None = None,
    html_action: str = "view",
    max_bytes: int = MAX_BYTES,
) -> View | str:
    """The page for attentions as models return them, dense or lazy: the call of BertViz's function of this name.

    Dense weights ``A`` are shown as the softmax of ``log A``, which they are. The page is the same as that of
    `save_html`: all heads, each one's map, and the text with its lines.

    Args:
        attention: one ``(B, H, Lq, Lk)`` a layer, of which the first batch entry is shown; None where a layer has none.
        tokens: one string a key.
        prettify_tokens: whether to show the marks that tokenizers write for a space, ``Ġ`` and ``▁``, as spaces.
        include_layers: the layers to show; default: all.
        html_action: ``"view"`` gives a `View`, which a notebook shows; ``"return"`` the page as a string.
        max_bytes: refuse a larger page.

    Raises:
        KindError: something else than weights of one float tensor, or lazy ones, a layer.
        ShapeError: dense weights that are not 4-dimensional, tokens that are not one a key.
        ArgumentError: rows that are neither probabilities nor all 0, as after dropout; layers that are not there;
            a page that is too large.
    """
    if html_action not in ("view", "return"):
        raise ArgumentError(f"html_action is 'view' or 'return': got {html_action!r}.")
    if not isinstance(attention, (list, tuple)):
        raise KindError(f"attention is a list of weights, one a layer: got {describe(attention)}.")
    wanted = range(len(attention)) if include_layers is None else sorted(set(include_layers))
    if any(not 0 <= n < len(attention) for n in wanted):
        raise ArgumentError(f"include_layers are out of 0 … {len(attention) - 1}: got {list(wanted)}.")
    layers = [_lazy(n, attention[n]) if n in wanted else None for n in range(len(attention))]
    shown = [_pretty(token) for token in tokens] if prettify_tokens else list(tokens)
    page = embedded([subject_of(layers, tokens=shown)], max_bytes=max_bytes, compress=True)
    return View(page) if html_action == "view" else page


model_view: Callable[..., View | str] = head_view
"""The same page: its grid shows every head of every layer at once."""


def _lazy(layer: int, weights: object) -> AttentionWeights | None:
    if weights is None or isinstance(weights, AttentionWeights):
        return weights
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        raise KindError(f"attention[{layer}] is a float tensor or lazy weights: got {describe(weights)}.")
    if weights.ndim != 4:
        raise ShapeError(f"attention[{layer}] is (B, H, q_len, k_len): got {tuple(weights.shape)}.")
    dense = weights[:1].detach().to("cpu", torch.float32)
    sums = dense.sum(-1)
    # As many roundings of the weights' own dtype as a row may have.
    slack = max(4 * torch.finfo(weights.dtype).eps, 1e-4)
    wrong = ((sums - 1).abs() > slack) & (sums != 0)
    if bool((dense < 0).any()) or bool(wrong.any()) or bool(sums.isnan().any()):
        raise ArgumentError(
            f"each row of attention[{layer}] is probabilities that sum to 1, or all 0: got sums from "
            f"{float(sums.min()):.4g} to {float(sums.max()):.4g}. Weights after dropout are not; call model.eval()."
        )
    heads, rows, cols = dense.shape[1:]
    nothing = [torch.zeros(1, heads, n, 1) for n in (rows, cols, cols)]
    return inspect(*nothing, score_mod=Bias(dense.log())).weights


def _pretty(token: str) -> str:
    for mark in _SPACES:
        token = token.replace(mark, " ")
    return token.removesuffix("</w>")

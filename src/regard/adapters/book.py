"""Checkpoints of the attention modules of S. Raschka's *Build a Large Language Model (From Scratch)*, chapter 3.

What is converted: `regard.nn` has the book's names, ``W_query``, ``W_key``, ``W_value``, ``out_proj`` and the wrapper's
``heads.N``, so that weights go over as they are. The book's modules also save a buffer ``mask``, the causal triangle
with 1 = hide; in regard `Causal` is a rule and holds no tensor, so that a ``mask`` that is this triangle is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError
from regard.adapters._equivalence import assert_equivalent, check_materialised
from regard.adapters._keys import match
from regard.nn import CausalAttention, MultiHeadAttention, SelfAttentionV1, SelfAttentionV2
from regard.nn.fused import as_parameters

_Attention = SelfAttentionV1 | SelfAttentionV2 | CausalAttention | MultiHeadAttention


def load_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a checkpoint of the book's module into ``module``, a module of `regard.nn` or a model that has some.

    Before anything is loaded, every attention module is run on random tokens with the checkpoint's weights, in eval
    mode, and compared with the book's own steps on them: ``softmax(q kᵀ / √D, future hidden) v``. So a checkpoint of
    causal heads does not go into a module with another mask, or with score changes.

    Raises:
        ArgumentError: a key without a place or a place without a key, with the nearest one; a ``mask`` that is not the
            causal triangle; weights without numbers; results that differ.
        ShapeError: a tensor of another shape.

    >>> theirs = rg.nn.MultiHeadAttention(6, 4, context_length=5, dropout=0.0, num_heads=2).state_dict()
    >>> theirs["mask"] = torch.triu(torch.ones(5, 5), diagonal=1)
    >>> load_state_dict(rg.nn.MultiHeadAttention(6, 4, context_length=5, dropout=0.0, num_heads=2), theirs)
    """
    own = module.state_dict()
    given = {key: tensor for key, tensor in state_dict.items() if key in own or not _is_causal_mask(key, tensor)}
    match(given, {key: tensor.shape for key, tensor in own.items()})
    for name, part in module.named_modules():
        if isinstance(part, _Attention):
            prefix = f"{name}." if name else ""
            _compare(part, {key: given[prefix + key] for key in part.state_dict()}, name or type(part).__name__)
    module.load_state_dict(given)


def _is_causal_mask(key: str, tensor: Tensor) -> bool:
    """True for the book's ``mask``; raises ArgumentError for a mask of another content."""
    if key.rpartition(".")[2] != "mask":
        return False
    size = tensor.shape[-1] if tensor.ndim else 0
    if tensor.shape != (size, size) or not torch.equal(tensor.bool().cpu(), torch.ones(size, size).triu(1).bool()):
        raise ArgumentError(
            f"{key!r} is left out only where it is the book's causal triangle, 1 above the diagonal: got another "
            f"one of shape {tuple(tensor.shape)}. Give the module a mask= of the same meaning and remove the key."
        )
    return True


def _compare(part: _Attention, weights: dict[str, Tensor], name: str) -> None:
    check_materialised("a checkpoint", list(weights.values()))
    some = weights.get("W_query.weight", weights.get("W_query"))
    assert some is not None
    length = min(5, getattr(part, "context_length", 5))
    x = torch.randn(2, length, part.d_in, generator=torch.Generator().manual_seed(0)).to(some)
    mode, part.training = part.training, False
    try:
        with torch.no_grad():
            ours = torch.func.functional_call(part, as_parameters(part, weights), (x,))
            theirs = _by_the_book(part, weights, x)
    finally:
        part.training = mode
    assert_equivalent(f"{name} and the book's module", ours, theirs)


def _by_the_book(part: _Attention, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    def layer(name: str, x: Tensor) -> Tensor:
        if name in weights:
            return x @ weights[name]
        return nn.functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    heads, kv_heads = (part.num_heads, part.num_kv_heads) if isinstance(part, MultiHeadAttention) else (1, 1)
    if heads != kv_heads:
        raise ArgumentError(
            f"the book's modules have as many key/value heads as query heads: got {kv_heads} for {heads}."
        )
    q, k, v = (layer(name, x).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ("W_query", "W_key", "W_value"))
    scores = q @ k.mT
    if isinstance(part, (CausalAttention, MultiHeadAttention)):
        future = torch.ones(scores.shape[-2:], device=x.device).triu(1).bool()
        scores = scores.masked_fill(future, -torch.inf)
    context = (torch.softmax(scores / math.sqrt(k.shape[-1]), -1) @ v).transpose(1, 2).flatten(2)
    return layer("out_proj", context) if "out_proj.weight" in weights else context

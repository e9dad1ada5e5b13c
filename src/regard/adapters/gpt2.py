"""GPT-2's attention: the fused ``c_attn`` and ``c_proj``, as checkpoints and as transformers' module, and back.

What is converted: GPT-2 keeps a linear layer as ``(d_in, d_out)`` (transformers' ``Conv1D``, ``x @ weight + bias``),
the transpose of `torch.nn.Linear`'s, and the projections to queries, keys and values side by side in one, ``c_attn``.
Older checkpoints also save the causal triangle as a buffer ``bias`` and the number that hides as ``masked_bias``; in
regard `Causal` is a rule and holds no tensor, so that these two are left out where they are that.

What differs, on purpose: the dropout *after* ``c_proj`` (``resid_dropout``) is no part of attention. It stays outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError, KindError, describe
from regard.adapters._equivalence import assert_equivalent, check_materialised, in_eval, random_tokens
from regard.adapters._keys import below, match
from regard.nn import MultiHeadAttention
from regard.nn.fused import as_parameters

_HINT = " GPT-2's layers have biases: make the module with qkv_bias=True and out_bias=True."


def load_state_dict(module: MultiHeadAttention, state_dict: Mapping[str, Tensor], prefix: str = "") -> None:
    """Load ``c_attn`` and ``c_proj`` of one layer into ``module``.

    Before anything is loaded, the module is run on random tokens with the checkpoint's weights and compared with
    GPT-2's own steps on them, so that weights do not go into a module that means something else.

    Args:
        module: with ``qkv_bias=True`` and as many key/value heads as query heads.
        state_dict: of one layer, or of a whole model.
        prefix: of this layer's keys, such as ``"transformer.h.0.attn."``.

    Raises:
        KindError: no `rg.nn.MultiHeadAttention`.
        ArgumentError: a key without a place or a place without a key, with the nearest one; weights without numbers;
            results that differ.
        ShapeError: a tensor of another shape.

    >>> layer = rg.nn.MultiHeadAttention(6, 6, context_length=8, dropout=0.0, num_heads=2, qkv_bias=True)
    >>> checkpoint = state_dict(layer, "h.0.attn.")
    >>> sorted(checkpoint)
    ['h.0.attn.c_attn.bias', 'h.0.attn.c_attn.weight', 'h.0.attn.c_proj.bias', 'h.0.attn.c_proj.weight']
    >>> load_state_dict(layer, checkpoint, "h.0.attn.")
    """
    wanted = {key: x.shape for key, x in _fused(module).items()}
    given = below(state_dict, prefix, wanted)
    given = {key: x for key, x in given.items() if key in wanted or not _is_left_out(prefix, key, x)}
    match(given, wanted, prefix, _HINT)
    check_materialised("a checkpoint", list(given.values()))
    weights = _split(given)
    x = random_tokens(given["c_attn.weight"], min(5, module.context_length), module.d_in)
    with in_eval(module), torch.no_grad():
        ours = torch.func.functional_call(module, as_parameters(module, weights), (x,))
    assert_equivalent("regard's module and GPT-2's steps", ours, _by_gpt2(given, x, module.num_heads))
    module.load_state_dict(weights)


def state_dict(module: MultiHeadAttention, prefix: str = "") -> dict[str, Tensor]:
    """The weights of ``module`` as GPT-2 saves them: ``c_attn (d_in, 3 d_out)`` and ``c_proj``, new tensors.

    Raises:
        KindError: no `rg.nn.MultiHeadAttention`.
        ArgumentError: weights that GPT-2 has no place for: grouped heads, sinks, norms, no biases.
    """
    return {prefix + key: x for key, x in _fused(module).items()}


def _fused(module: MultiHeadAttention) -> dict[str, Tensor]:
    """The weights under GPT-2's names."""
    if not isinstance(module, MultiHeadAttention):
        raise KindError(f"GPT-2's attention goes into a regard.nn.MultiHeadAttention: got {describe(module)}.")
    if module.num_kv_heads != module.num_heads:
        raise ArgumentError(
            f"GPT-2 has as many key/value heads as query heads: got {module.num_kv_heads} for {module.num_heads}."
        )
    own = module.state_dict()
    parts = ("W_query", "W_key", "W_value")
    known = {f"{part}.{kind}" for part in (*parts, "out_proj") for kind in ("weight", "bias")}
    for key in own:
        if key not in known:
            raise ArgumentError(f"the module has {key!r}, which GPT-2's attention has not.")
    made = {}
    for kind in ("weight", "bias"):
        if f"W_query.{kind}" in own:
            made[f"c_attn.{kind}"] = _flipped(torch.cat([own[f"{part}.{kind}"] for part in parts]))
        if f"out_proj.{kind}" in own:
            made[f"c_proj.{kind}"] = _flipped(own[f"out_proj.{kind}"]).clone()
    return made


def from_transformers(attention: nn.Module) -> MultiHeadAttention:
    """Transformers' ``GPT2Attention`` (``model.transformer.h[0].attn``) as a module of regard, its weights copied.

    Both are run in eval mode on the same random tokens and compared.

    Raises:
        KindError: a module without ``c_attn`` and ``c_proj``.
        ArgumentError: cross-attention; scores that are scaled otherwise; a module in training mode whose
            ``resid_dropout`` would be lost; weights without numbers; results that differ.
    """
    _check_kind(attention)
    theirs: Any = attention
    drop = theirs.resid_dropout.p
    if attention.training and drop > 0:
        raise ArgumentError(
            f"GPT-2 drops {drop:g} of its output after c_proj (resid_dropout), which is no part of attention: got a "
            f"module in training mode. Convert it in eval mode, and train with nn.Dropout({drop:g}) behind the result."
        )
    if not math.isclose(theirs.scaling, theirs.head_dim**-0.5):
        raise ArgumentError(
            f"regard.nn scales scores by 1/√D = {theirs.head_dim**-0.5:.6g}: got a module that scales them by "
            f"{theirs.scaling:.6g} (scale_attn_weights, scale_attn_by_inverse_layer_idx)."
        )
    size = theirs.embed_dim
    module = MultiHeadAttention(
        size, size, theirs.config.n_positions, theirs.attn_dropout.p, theirs.num_heads, qkv_bias=True
    )
    module.to(theirs.c_attn.weight)
    load_state_dict(module, attention.state_dict())
    module.train(attention.training)
    _compare(module, attention)
    return module


def to_transformers(module: MultiHeadAttention, attention: nn.Module) -> None:
    """Copy the weights of ``module`` into transformers' ``GPT2Attention`` and compare; if they differ, take them back.

    Raises:
        KindError: other kinds of modules.
        ArgumentError: as for `from_transformers` and `state_dict`.
        ShapeError: a module of another size.
    """
    _check_kind(attention)
    made = state_dict(module)
    match(
        made, {key: x.shape for key, x in attention.state_dict().items() if key.split(".")[0] in ("c_attn", "c_proj")}
    )
    before = {key: x.clone() for key, x in attention.state_dict().items()}
    attention.load_state_dict(made, strict=False)
    try:
        _compare(module, attention)
    except ArgumentError:
        attention.load_state_dict(before)
        raise


def _check_kind(attention: nn.Module) -> None:
    if not all(hasattr(attention, name) for name in ("c_attn", "c_proj", "scaling", "resid_dropout")):
        raise KindError(f"this takes transformers' GPT2Attention: got a {type(attention).__name__}.")
    if hasattr(attention, "q_attn"):
        raise ArgumentError(
            "GPT-2's cross-attention has queries of their own in q_attn, and c_attn holds keys and values alone. Only "
            "self-attention is converted."
        )


def _is_left_out(prefix: str, key: str, x: Tensor) -> bool:
    """True for the causal triangle and the number that hides; raises ArgumentError for a ``bias`` of other content."""
    if key == "masked_bias":
        return x.ndim == 0
    if key != "bias" or x.ndim != 4:
        return False
    size = x.shape[-1]
    if not torch.equal(x.reshape(-1, size).cpu() != 0, torch.ones(size, size, dtype=torch.bool).tril()):
        raise ArgumentError(
            f"{prefix + key!r} is left out only where it is GPT-2's causal triangle, 1 on and below the diagonal: got "
            f"another one of shape {tuple(x.shape)}. Remove the key, and give the module a mask= of the same meaning."
        )
    return True


def _flipped(x: Tensor) -> Tensor:
    """A weight between ``Conv1D``'s layout and `torch.nn.Linear`'s; a bias is the same in both."""
    return x.mT.contiguous() if x.ndim == 2 else x


def _split(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's tensors under regard's names."""
    made: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        q, k, v = _flipped(given[f"c_attn.{kind}"]).chunk(3)
        made |= {f"W_query.{kind}": q, f"W_key.{kind}": k, f"W_value.{kind}": v}
        made[f"out_proj.{kind}"] = _flipped(given[f"c_proj.{kind}"])
    return made


def _by_gpt2(given: Mapping[str, Tensor], x: Tensor, heads: int) -> Tensor:
    q, k, v = (x @ given["c_attn.weight"] + given["c_attn.bias"]).chunk(3, -1)
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (q, k, v))
    future = torch.ones(x.shape[1], x.shape[1], device=x.device).triu(1).bool()
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(future, -torch.inf)
    context = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    out: Tensor = context @ given["c_proj.weight"] + given["c_proj.bias"]
    return out


def _compare(module: MultiHeadAttention, attention: nn.Module) -> None:
    length = min(7, module.context_length)
    x = random_tokens(module.out_proj.weight, length, module.d_in)
    hidden = torch.full((length, length), -torch.inf, dtype=x.dtype, device=x.device).triu(1)[None, None]
    with in_eval(module), in_eval(attention), torch.no_grad():
        ours, theirs = module.forward(x), attention.forward(x, attention_mask=hidden)[0]
    assert_equivalent("regard's module and transformers' GPT2Attention", ours, theirs)

"""transformers' Llama-style attention modules, and back."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError, KindError
from regard.adapters._equivalence import assert_equivalent, in_eval, random_tokens
from regard.adapters._keys import match
from regard.adapters.llama._rope import rotary_embedding
from regard.adapters.llama._weights import load_state_dict, state_dict
from regard.masks import Causal, Everything, Mask, SlidingWindow
from regard.nn import MultiHeadAttention, RotaryEmbedding
from regard.nn.rotary import Layout
from regard.scores import Softcap

_LENGTH = 7


def from_transformers(
    attention: nn.Module, rotary: nn.Module | None = None, *, layout: Layout = "half-split"
) -> MultiHeadAttention:
    """One attention layer of a Llama-style model as a module of regard, its weights copied.

    Heads, rotary positions and their scaling, query-key norm, window, softcap and sinks are read from the layer and its
    configuration. Both are run in eval mode on the same random tokens and compared, and so are the frequencies.

    Args:
        attention: such as ``model.model.layers[0].self_attn``.
        rotary: the model's rotary embedding, ``model.model.rotary_emb``; None for a layer without.
        layout: which features the model turns as a pair; the result's ``rope`` has the same.

    Raises:
        KindError: a module without the four projections.
        ArgumentError: a weight that has no place, with the nearest one; scores that are scaled otherwise; weights
            without numbers; results that differ.
        ShapeError: projections of other sizes, such as one with a gate.
        UnsupportedError: a rope type without a scaling in regard.
    """
    _check_kind(attention)
    theirs: Any = attention
    width = theirs.head_dim
    if not math.isclose(theirs.scaling, width**-0.5, rel_tol=1e-6):
        raise ArgumentError(
            f"regard.nn scales scores by 1/√D = {width**-0.5:.6g}: got a layer that scales them by "
            f"{theirs.scaling:.6g}."
        )
    rope = None if rotary is None else _rope(rotary, layout)
    cap = getattr(theirs, "attn_logit_softcapping", None)
    module = MultiHeadAttention(
        theirs.q_proj.in_features,
        theirs.o_proj.out_features,
        theirs.config.max_position_embeddings,
        getattr(theirs, "attention_dropout", 0.0),
        theirs.q_proj.out_features // width,
        qkv_bias=theirs.q_proj.bias is not None,
        num_kv_heads=theirs.k_proj.out_features // width,
        head_dim=width,
        mask=_mask(theirs),
        score_mod=None if cap is None else Softcap(cap),
        rope=rope,
        qk_norm=_norm(theirs),
        sinks=getattr(theirs, "sinks", None) is not None,
        out_bias=theirs.o_proj.bias is not None,
    )
    module.to(theirs.q_proj.weight)
    load_state_dict(module, attention.state_dict(), layout=layout)
    module.train(attention.training)
    _compare(module, attention, rotary)
    return module


def to_transformers(module: MultiHeadAttention, attention: nn.Module, rotary: nn.Module | None = None) -> None:
    """Copy the weights of ``module`` into transformers' layer, and compare; on a difference, take them back.

    Args:
        module: whose weights go over, in transformers' layout whatever its own.
        attention: such as ``model.model.layers[0].self_attn``.
        rotary: the model's rotary embedding; None for a layer without.

    Raises:
        KindError: other kinds of modules.
        ArgumentError: a weight without a place, with the nearest one; results that differ.
        ShapeError: a layer of another size.
    """
    _check_kind(attention)
    made = state_dict(module)
    match(made, {key: x.shape for key, x in attention.state_dict().items()})
    before = {key: x.clone() for key, x in attention.state_dict().items()}
    attention.load_state_dict(made)
    try:
        _compare(module, attention, rotary)
    except ArgumentError:
        attention.load_state_dict(before)
        raise


def _check_kind(attention: nn.Module) -> None:
    wanted = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling", "config")
    missing = [name for name in wanted if not hasattr(attention, name)]
    if missing:
        raise KindError(
            f"this takes a Llama-style attention module of transformers, with {', '.join(wanted)}: got a "
            f"{type(attention).__name__} without {', '.join(missing)}."
        )


def _mask(theirs: Any) -> Mask:
    """Causal unless the layer says otherwise, and its window where it has one."""
    mask = Causal() if getattr(theirs, "is_causal", True) else Everything()
    window = getattr(theirs, "sliding_window", None)
    if not hasattr(theirs, "sliding_window") and not hasattr(theirs.config, "layer_types"):
        # Mistral's layers ask the configuration.
        window = getattr(theirs.config, "sliding_window", None)
    if window is None:
        return mask
    if isinstance(mask, Everything):
        raise ArgumentError(f"a window of {window} that is not causal has no one meaning among models. Give a mask=.")
    return mask & SlidingWindow.of_width(window)


def _norm(theirs: Any) -> Any:
    norm = getattr(theirs, "q_norm", None)
    if norm is None:
        return None
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return lambda width: nn.RMSNorm(width, eps=eps)


def _rope(rotary: Any, layout: Layout) -> RotaryEmbedding:
    config = rotary.config
    rope = rotary_embedding(
        config.rope_parameters, 2 * rotary.inv_freq.shape[-1], config.max_position_embeddings, layout
    )
    own = rope.frequencies(torch.zeros(1, dtype=torch.int64, device=rotary.inv_freq.device))
    if not torch.allclose(own, rotary.inv_freq.double(), rtol=1e-5, atol=0):
        raise ArgumentError(
            f"the frequencies of {type(rotary).__name__} are not those of {rope!r}, which its configuration names."
        )
    return rope


def _compare(module: MultiHeadAttention, attention: Any, rotary: Any) -> None:
    length = min(_LENGTH, module.context_length)
    x = random_tokens(module.out_proj.weight, length, module.d_in)
    allowed = _mask(attention).dense(length, length).to(x.device)
    hidden = torch.zeros(1, 1, length, length, dtype=x.dtype, device=x.device).masked_fill(~allowed, -torch.inf)
    config, places = attention.config, torch.arange(length, device=x.device)[None]
    chosen = config._attn_implementation
    with in_eval(module), in_eval(attention), torch.no_grad():
        # Eager takes the mask above whatever the model was set to.
        config._attn_implementation = "eager"
        try:
            turns: tuple[Tensor, Tensor] | None = None if rotary is None else rotary(x, places)
            theirs = attention.forward(hidden_states=x, position_embeddings=turns, attention_mask=hidden)[0]
        finally:
            config._attn_implementation = chosen
        ours = module.forward(x)
    assert_equivalent(f"regard's module and transformers' {type(attention).__name__}", ours, theirs)

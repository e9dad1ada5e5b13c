"""The weights of one layer under Llama's names, and under regard's."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from regard._coordinates import Frame
from regard._errors import ArgumentError, KindError, describe
from regard.adapters._equivalence import assert_equivalent, check_materialised, in_eval, random_tokens
from regard.adapters._keys import below, match, shapes
from regard.masks import Everything
from regard.nn import MultiHeadAttention, half_split_to_interleaved, interleaved_to_half_split
from regard.nn.fused import as_parameters
from regard.nn.rotary import Layout

NAMES = {
    "W_query": "q_proj",
    "W_key": "k_proj",
    "W_value": "v_proj",
    "out_proj": "o_proj",
    "q_norm": "q_norm",
    "k_norm": "k_norm",
    "sinks": "sinks",
}
"""What is in a `MultiHeadAttention`, and its name in a Llama-style layer."""

_OURS = {theirs: ours for ours, theirs in NAMES.items()}
_TURNED = ("q_proj", "k_proj", "q_norm", "k_norm")
_LENGTH = 7


def load_state_dict(
    module: MultiHeadAttention, state_dict: Mapping[str, Tensor], prefix: str = "", *, layout: Layout = "half-split"
) -> None:
    """Load the projections, norms and sinks of one layer into ``module``.

    Before anything is loaded, the module is run on random tokens with the converted weights and compared with a dense
    computation on the checkpoint's own, in the checkpoint's own layout.

    Args:
        module: its ``rope`` says which layout the weights are converted to.
        state_dict: of one layer, or of a whole model.
        prefix: of this layer's keys, such as ``"model.layers.0.self_attn."``.
        layout: rotary layout that the checkpoint is written for: ``"half-split"`` as transformers saves it,
            ``"interleaved"`` as Meta does.

    Raises:
        KindError: no `rg.nn.MultiHeadAttention`.
        ArgumentError: a key without a place or a place without a key, with the nearest one; an unknown layout; weights
            without numbers; results that differ.
        ShapeError: a tensor of another shape.

    >>> layer = rg.nn.MultiHeadAttention(6, 6, context_length=8, dropout=0.0, num_heads=3, num_kv_heads=1,
    ...                                  rope=rg.nn.RotaryEmbedding(2), out_bias=False)
    >>> checkpoint = state_dict(layer, "layers.0.self_attn.")
    >>> sorted(key.rsplit(".", 2)[1] for key in checkpoint)
    ['k_proj', 'o_proj', 'q_proj', 'v_proj']
    >>> load_state_dict(layer, checkpoint, "layers.0.self_attn.")
    """
    wanted = shapes(_checked(module, layout), NAMES)
    given = below(state_dict, prefix, wanted)
    given = {key: x for key, x in given.items() if key in wanted or not _are_frequencies(module, prefix, key, x)}
    match(given, wanted, prefix)
    check_materialised("a checkpoint", list(given.values()))
    weights = {_renamed(key, _OURS): x for key, x in _turned(module, given, layout, loading=True).items()}
    x = random_tokens(given["q_proj.weight"], min(_LENGTH, module.context_length), module.d_in)
    with in_eval(module), torch.no_grad():
        ours = torch.func.functional_call(module, as_parameters(module, weights), (x,))
        theirs = _by_llama(module, given, x, layout)
    assert_equivalent("regard's module and the Llama-style layer", ours, theirs)
    module.load_state_dict(weights)


def state_dict(module: MultiHeadAttention, prefix: str = "", *, layout: Layout = "half-split") -> dict[str, Tensor]:
    """The weights of ``module`` as a Llama-style layer saves them, new tensors; arguments as in `load_state_dict`.

    Raises:
        KindError: no `rg.nn.MultiHeadAttention`.
        ArgumentError: a weight that Llama-style layers have no name for, an unknown layout.
    """
    shapes(_checked(module, layout), NAMES)
    renamed = {_renamed(key, NAMES): x.clone() for key, x in module.state_dict().items()}
    return {prefix + key: x for key, x in _turned(module, renamed, layout, loading=False).items()}


def _checked(module: object, layout: object) -> MultiHeadAttention:
    if not isinstance(module, MultiHeadAttention):
        raise KindError(f"a Llama-style layer goes into a regard.nn.MultiHeadAttention: got {describe(module)}.")
    if layout not in ("half-split", "interleaved"):
        raise ArgumentError(f"layout must be 'half-split' or 'interleaved': got {describe(layout)}.")
    return module


def _renamed(key: str, names: Mapping[str, str]) -> str:
    part, dot, rest = key.partition(".")
    return names[part] + dot + rest


def _turned(
    module: MultiHeadAttention, given: Mapping[str, Tensor], layout: Layout, *, loading: bool
) -> dict[str, Tensor]:
    """Tensors under Llama's names, from the checkpoint's layout to that of the module's rope, or back."""
    if module.rope is None or module.rope.layout == layout:
        return dict(given)
    from_layout = layout if loading else module.rope.layout
    convert: Callable[[Tensor, int, int], Tensor] = (
        half_split_to_interleaved if from_layout == "half-split" else interleaved_to_half_split
    )
    heads = {"q_proj": module.num_heads, "k_proj": module.num_kv_heads, "q_norm": 1, "k_norm": 1}
    return {
        key: convert(x, heads[part], module.rope.dim) if (part := key.partition(".")[0]) in _TURNED else x
        for key, x in given.items()
    }


def _are_frequencies(module: MultiHeadAttention, prefix: str, key: str, x: Tensor) -> bool:
    """True for ``rotary_emb.inv_freq`` that holds those of rope; raises ArgumentError where it holds others."""
    if key != "rotary_emb.inv_freq" or module.rope is None:
        return False
    own = module.rope.frequencies(torch.zeros(1, dtype=torch.int64, device=x.device))
    # Some checkpoints hold them in bfloat16.
    if x.shape != own.shape or not torch.allclose(x.double(), own, rtol=1e-2, atol=0):
        raise ArgumentError(
            f"{prefix + key!r} is left out only where it holds the frequencies of rope: got others. Make the module "
            "with the RotaryEmbedding of the checkpoint's configuration."
        )
    return True


def _by_llama(module: MultiHeadAttention, given: Mapping[str, Tensor], x: Tensor, layout: Layout) -> Tensor:
    """The layer as its papers write it, on the checkpoint's tensors in their own layout."""

    def heads(name: str, count: int) -> Tensor:
        y = F.linear(x, given[f"{name}.weight"], given.get(f"{name}.bias"))
        split: Tensor = y.unflatten(-1, (count, module.head_dim))
        return split.transpose(1, 2)

    q, k, v = (
        heads(name, count)
        for name, count in (
            ("q_proj", module.num_heads),
            ("k_proj", module.num_kv_heads),
            ("v_proj", module.num_kv_heads),
        )
    )
    for name, norm in (("q_norm", module.q_norm), ("k_norm", module.k_norm)):
        if norm is not None:
            own = {key.partition(".")[2]: t for key, t in given.items() if key.startswith(f"{name}.")}
            normed = torch.func.functional_call(norm, own, (q if name == "q_norm" else k,))
            q, k = (normed, k) if name == "q_norm" else (q, normed)
    if module.rope is not None:
        positions = torch.arange(x.shape[1], device=x.device)
        angle = positions[:, None] * module.rope.frequencies(positions)
        turn = torch.polar(torch.full_like(angle, module.rope.magnitude), angle)
        q, k = (_turn(y, turn, layout) for y in (q, k))
    frame = Frame.of(x.shape[0], module.num_heads, x.shape[1], x.shape[1], device=x.device)
    group = module.num_heads // module.num_kv_heads
    s = q @ k.repeat_interleave(group, 1).mT * module.head_dim**-0.5
    for mod in module.score_mods:
        s = mod.modify(s, frame.everywhere())
    mask = Everything() if module.mask is None else module.mask
    s = torch.where(mask.over(frame), s, -torch.inf)
    if "sinks" in given:
        s = torch.cat([s, given["sinks"][:, None, None].expand(*s.shape[:3], 1).to(s)], -1)
    w = s.softmax(-1)[..., : x.shape[1]]
    context = (w @ v.repeat_interleave(group, 1)).transpose(1, 2).flatten(2)
    return F.linear(context, given["o_proj.weight"], given.get("o_proj.bias"))


def _turn(x: Tensor, turn: Tensor, layout: Layout) -> Tensor:
    """``x (B, H, L, D)``, its first pairs as complex numbers times ``turn (L, dim / 2)``."""
    count = 2 * turn.shape[-1]
    pairs = x[..., :count].double()
    pairs = pairs.unflatten(-1, (2, -1)).mT if layout == "half-split" else pairs.unflatten(-1, (-1, 2))
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
    turned = turned.mT if layout == "half-split" else turned
    return torch.cat([turned.flatten(-2).to(x.dtype), x[..., count:]], -1)

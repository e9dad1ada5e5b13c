"""The attention and mask functions that transformers calls."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from regard._errors import KindError, RegardError, UnsupportedError, describe
from regard._observe import attend as attend_as
from regard._observe import look
from regard.adapters.huggingface.arguments import unknown
from regard.adapters.huggingface.mask_tensor import MaskTensor
from regard.adapters.huggingface.masks import Geometry, MaskFunction, padding, read
from regard.adapters.huggingface.weights import Attentions
from regard.masks import Dense, Everything, Mask
from regard.scores import Bias, ScoreModification, Softcap
from regard.weights import AttentionWeights


def make_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: MaskFunction | None = None,
    attention_mask: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    allow_is_bidirectional_skip: bool = False,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | None:
    """The mask function: what transformers wants masked, as a `MaskTensor`.

    None only where eager's mask function gives None too: every query may attend to every key. Under `torch.compile`
    and `torch.export`, eager's tensor itself.
    """
    from transformers import masking_utils

    mask_function = mask_function or masking_utils.causal_mask_function

    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        made: Tensor = masking_utils.eager_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            mask_function,
            attention_mask,
            dtype,
            allow_is_bidirectional_skip,
            use_vmap,
            device,
        )
        return made

    def evaluate(function: MaskFunction) -> Tensor:
        allowed: Tensor = masking_utils.sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            function,
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=device,
        )
        return allowed

    at = Geometry(batch_size, q_length, kv_length, int(q_offset), kv_offset, torch.device(device))
    valid = padding(attention_mask, at)
    if allow_is_bidirectional_skip and mask_function is masking_utils.bidirectional_mask_function and valid == _ALL:
        return None
    # The keys of a static cache are written into by the next step: it has room, and then its offset is a tensor.
    written = mask_function is not masking_utils.bidirectional_mask_function
    in_place = written and (isinstance(q_offset, Tensor) or at.first_query + q_length < kv_length)
    mask = read(mask_function, at, evaluate) & valid
    small = sum(tensor.numel() for tensor in mask.tensors()) <= _SETTLED
    return MaskTensor.of(mask.settle() if small else mask, at, dtype, in_place=in_place)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    indices: Tensor | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Attentions | Tensor | None]:
    """The attention function: ``(out (B, Lq, H, Dv), weights or None)``.

    Args:
        module: the attention layer, which is named in errors and to whoever records.
        query: ``(B, H, Lq, D)``.
        key: ``(B, Hkv, Lk, D)``.
        value: ``(B, Hkv, Lk, Dv)``.
        attention_mask: a `MaskTensor`, a float tensor that is added, a bool tensor (True = may attend), or None.
        scaling: factor of the dot products.
        dropout: probability, 0 outside training.
        position_bias: added to the scores.
        softcap: ``cap · tanh(s / cap)``.
        s_aux: ``(H,)``, the sinks.
        indices: ``(B, Lq, n)``, the only keys that each query may attend to (DeepSeek sparse attention).
        is_causal: of layers that make no mask themselves.
        **kwargs: anything else must be known to be harmless.

    Raises:
        UnsupportedError: an argument that regard does not know.
        RegardError: whatever `regard.attention` refuses, with the name of the layer in front.
    """
    try:
        strange = unknown(kwargs)
        if strange:
            raise UnsupportedError(
                f"attention was given {', '.join(f'{name}={describe(kwargs[name])}' for name in strange)}, which "
                'regard does not know and will not drop. Use model.set_attn_implementation("eager") for this model.'
            )
        if attention_mask is None and is_causal and query.shape[2] > 1:
            raise UnsupportedError(
                "is_causal=True came without a mask, which eager attention would not mask and torch's would. Make the "
                "mask with transformers.masking_utils.create_causal_mask."
            )
        mask, q_positions, added = _masking(attention_mask, query, key)
        if indices is not None:
            mask = (Everything() if mask is None else mask) & _only(indices, key.shape[2])
        changes: list[ScoreModification] = []
        if softcap is not None:
            changes.append(Softcap(softcap))
        changes += [Bias(bias) for bias in (position_bias, added) if bias is not None]
        call: dict[str, Any] = {
            "mask": mask,
            "score_mod": changes,
            "scale": scaling,
            "dropout_p": dropout,
            "sinks": None if s_aux is None else s_aux.reshape(-1),
            "q_positions": q_positions,
        }
        if not _wants_weights(module, kwargs):
            out = attend_as(module, query, key, value, **call)
            return out.transpose(1, 2).contiguous(), None
        in_place = isinstance(attention_mask, MaskTensor) and attention_mask.in_place
        seen = look(module, query, key.clone() if in_place else key, value, **call)
        return seen.out.transpose(1, 2).contiguous(), _kept(seen.weights, query)
    except RegardError as error:
        _named(module, error)


def _kept(weights: AttentionWeights, query: Tensor) -> Attentions | Tensor:
    """The weights as the model hands them out: lazy, but for a decoding step.

    Its row is smaller than the keys that it would be computed from, and ``generate`` keeps every step's.
    """
    return weights.dense() if query.shape[2] == 1 else Attentions.of(weights)


def _masking(given: Tensor | None, query: Tensor, key: Tensor) -> tuple[Mask | None, Tensor | None, Tensor | None]:
    """A mask, the queries' positions for it, and what is added to the scores."""
    if given is None:
        return None, None, None
    if isinstance(given, MaskTensor):
        # One mask for all queries, which broadcasts, has another size than the call: then it is the tensor that counts.
        fits = (given.geometry.q_len, given.geometry.k_len) == (query.shape[2], key.shape[2])
        mask = given.mask if fits else None
        return (None, None, given.made()) if mask is None else (mask, given.q_positions, None)
    if not isinstance(given, Tensor):
        raise KindError(f"attention takes a tensor as its mask: got {describe(given)}.")
    if given.dtype == torch.bool:
        return Dense(given), None, None
    if given.is_floating_point():
        return None, None, given
    raise KindError(
        f"attention takes a bool mask (True = may attend) or a float mask that is added: got {describe(given)}."
    )


def _only(indices: Tensor, k_len: int) -> Mask:
    allowed = torch.zeros((*indices.shape[:-1], k_len), dtype=torch.bool, device=indices.device)
    return Dense(allowed.scatter(-1, indices.long(), True)[:, None])  # torch takes it by position


def _wants_weights(module: nn.Module, kwargs: dict[str, Any]) -> bool:
    if kwargs.get("output_attentions"):
        return True
    if getattr(getattr(module, "config", None), "output_attentions", False):
        return True
    from transformers.utils.output_capturing import _active_collector

    collected = _active_collector.get()
    return bool(collected) and any("attentions" in name for name in collected)


def _named(module: nn.Module, error: RegardError) -> NoReturn:
    """Raise ``error`` with the name of the layer and of its model in front."""
    config = getattr(module, "config", None)
    layer = getattr(module, "layer_idx", None)
    where = type(module).__name__
    where += "" if layer is None else f", layer {layer}"
    where += "" if config is None else f", of a {getattr(config, 'model_type', type(config).__name__)!r} model"
    if isinstance(error, UnsupportedError):
        raise UnsupportedError(f"{where}: {error}", error.reasons) from error
    raise type(error)(f"{where}: {error}") from error


_ALL = Everything()
_SETTLED = 1 << 20
"""Up to this many elements a mask's tensors are copied, so that all layers may share what the kernels read."""

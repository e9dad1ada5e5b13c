"""A small configuration of any architecture: its default with every size cut down."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

LAYERS, HEADS, WIDTH, WORDS = 2, 4, 64, 160
TOKENS = 20
IMAGE, PATCH = 32, 8

SIZES: list[tuple[str, int]] = [
    (r"\w*codebook_size", 128),
    (r"(\w*vocab_size|n_words|vocab_size_\w+)", WORDS),
    (r"\w*(num_attention_heads|n_heads?|attention_heads|num_heads|num_query_heads)", HEADS),
    (r"\w*(num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers|depth|num_blocks|layer_num)", LAYERS),
    (r"(num_encoder_layers|num_decoder_layers|decoder_num_layers|encoder_num_layers|num_block_layers)", LAYERS),
    (r"(\w*hidden_size|d_model|n_embd|embed_dim|embedding_size|dim|hidden_dim|word_embed_proj_dim|width)", WIDTH),
    (r"(projection_dim|out_hidden_size|projector_dim|output_dim|embed_proj_dim)", WIDTH),
    (r"\w*(intermediate_size|ffn_dim|d_ff|inner_dim|mlp_dim|n_inner|intermediate_dim|ffn_hidden_size)", 96),
    (r"\w*(num_experts_per_tok|experts_per_token|moe_topk|moe_top_k|num_experts_per_token|moe_k)", 2),
    (r"\w*(num_local_experts|num_experts|n_routed_experts|moe_num_experts|num_routed_experts)", 4),
    (r"(n_group|topk_group|num_expert_group)", 1),
    (r"(\w*max_position_embeddings|n_positions|max_source_positions|max_target_positions|max_seq_len)", 256),
    (r"(sliding_window|attention_window|local_attention|attention_chunk_size|window_size|attn_window_size)", 6),
    (r"rotary_dim", 8),
    (r"(kv_lora_rank|q_lora_rank|o_lora_rank)", 16),
    (r"(image_size|img_size|input_size)", IMAGE),
    (r"(patch_size|conv_kernel_size_patch)", PATCH),
    (r"(index_topk|index_n_heads)", 4),
    (r"attn_layer_period", 2),
    (r"attn_layer_offset", 1),
    (r"(num_mel_bins|num_mel_channels)", 16),
]
"""The first pattern that matches an int's whole name decides its value, if that is smaller."""
OFF = re.compile(r"\w*(dropout|drop|layerdrop|drop_prob|dropout_prob|drop_rate|drop_path_rate|dropout_rate)")
"""Probabilities of dropping something, which are set to 0."""
IDS = re.compile(r"\w*(token_id|token_index|_start_id|_end_id)")
"""Ids of special tokens: the largest words, each its own, as the tokens of a text are drawn from the others."""
LEFT = ("id2label", "label2id", "transformers_version", "torch_dtype", "dtype")
"""Entries that are left as they are."""
SPECIAL = 40
"""How many words at the end of the vocabulary are left to special tokens."""


@dataclass
class Variant:
    """What architectures disagree on.

    Attributes:
        kv_heads: key/value heads.
        head_dim: features of a head; some architectures share it out among rotary sections in their own way.
        width: features of a token; where no entry says what a head has, it has ``width / HEADS``.
        last: the last special token that was handed out; they come from the last word down.
    """

    kv_heads: int
    head_dim: int
    width: int = WIDTH
    last: int = WORDS

    def token(self) -> int:
        """The next special token."""
        self.last -= 1
        return self.last


VARIANTS = ((2, 16), (HEADS, 16), (HEADS, 64), (HEADS, 128), (HEADS, 64, 4 * WIDTH), (HEADS, 128, 8 * WIDTH))
"""Key/value heads, features of a head and of a token, in the order in which they are tried."""
KV_HEADS = re.compile(r"num_key_value_heads|num_kv_heads|n_head_kv|multi_query_group_num")
HEAD_DIM = re.compile(r"\w*(head_dim|head_size|d_kv|kv_channels)")


def small(config_class: Any, variant: Variant) -> Any:
    """A small configuration of ``config_class``."""
    return config_class(**_overrides(config_class, config_class(), replace(variant)))


def _overrides(config_class: Any, default: Any, variant: Variant) -> dict[str, Any]:
    found: dict[str, Any] = {}
    pictures = hasattr(default, "image_size")
    for name, value in vars(default).items():
        if (
            name.startswith("_")
            or isinstance(getattr(config_class, name, None), property)
            or name in ("id2label", "label2id", "transformers_version", "torch_dtype", "dtype")
        ):
            continue
        sub = config_class.sub_configs.get(name)
        if sub is not None:
            if value is not None and hasattr(value, "sub_configs"):
                found[name] = _overrides(type(value), value, variant) | {"model_type": value.model_type}
            continue
        changed = _changed(name, value, variant)
        if name == "window_size" and type(value) is int and (pictures or hasattr(default, "patch_size")):
            # A window of patches tiles the picture; where pictures have any size, it is counted in pixels.
            changed = min(value, IMAGE // PATCH if pictures else IMAGE)
        if name in ("pad_token_id", "mask_token_id") and value is None and getattr(default, "vocab_size", 0) is None:
            changed = variant.token()
        if name == "attn_layer_indices":
            changed = [1]
        if name == "default_language" and value is None:
            changed = default.languages[0]
        if changed is not None:
            found[name] = changed
    for listed in ("layer_types", "layers_block_type"):
        kinds = vars(default).get(listed)
        if isinstance(kinds, list):
            kinds = list(dict.fromkeys(kinds))
            layers = max(LAYERS, len(kinds))
            found[listed] = (kinds * LAYERS)[:layers]
            for name in ("num_hidden_layers", "n_layer", "num_layers"):
                if name in found:
                    found[name] = layers
    return found


def _changed(name: str, value: object, variant: Variant) -> object:
    """The small value of one entry, None to leave it."""
    if IDS.fullmatch(name):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return variant.token()
        if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
            return variant.token()
        return None
    if OFF.fullmatch(name) and isinstance(value, float):
        return 0.0
    if isinstance(value, bool):
        return None
    if name == "vocab_size" and value is None:
        return WORDS
    if KV_HEADS.fullmatch(name) and (value is None or isinstance(value, int)):
        return variant.kv_heads
    if HEAD_DIM.fullmatch(name) and (value is None or (isinstance(value, int) and value > 0)):
        return variant.head_dim
    if isinstance(value, (list, tuple)) and value and all(type(one) is int for one in value):
        if name == "depths":
            return [1] * len(value)
        if name in ("num_heads", "num_attention_heads"):
            return [2 ** (n + 1) for n in range(len(value))]
    for pattern, small_value in SIZES:
        if re.fullmatch(pattern, name):
            if small_value == WIDTH:
                small_value = variant.width
            if isinstance(value, int):
                return min(value, small_value) if value > 0 else None
            if isinstance(value, (list, tuple)) and value and name in ("image_size", "patch_size", "img_size"):
                return type(value)([small_value] * len(value))
            return None
    if isinstance(value, dict) and isinstance(value.get("mrope_section"), list):
        return value | {"mrope_section": _shared(variant.head_dim // 2, value["mrope_section"])}
    return None


def _shared(total: int, parts: list[int]) -> list[int]:
    """``total`` shared out as ``parts`` are."""
    shares = [total * part // sum(parts) for part in parts]
    return [total - sum(shares[1:]), *shares[1:]]

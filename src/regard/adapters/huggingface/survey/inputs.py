"""Inputs that a model of unknown kind may take: ragged text, pictures, sound."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from regard.adapters.huggingface.survey.configs import SPECIAL, TOKENS, WORDS

BATCH = 2
SHORT = TOKENS - 7
Inputs = dict[str, Tensor]


def candidates(model: Any) -> Iterator[Inputs]:
    """Inputs by the names of ``forward``, the likeliest first; of two texts, the second is shorter and padded."""
    names = inspect.signature(model.forward).parameters
    main = model.main_input_name if isinstance(model.main_input_name, str) else ""
    text = _text("", names) if "input_ids" in names or main == "input_ids" else {}
    target = _text("decoder_", names) if "decoder_input_ids" in names else {}
    if "grid_thw" in names:
        yield from _patches(model.config, names)
    if {"pixel_values", "pixel_attention_mask", "spatial_shapes"} <= names.keys() and not text:
        yield _padded_patches(model.config)
    if main in ("input_features", "input_values", "audio_values"):
        for sound in _sounds(model.config, main):
            yield {main: sound} | target
            if "input_features_mask" in names:
                yield {
                    main: sound,
                    "input_features_mask": torch.ones(BATCH, sound.shape[-1], dtype=torch.long),
                } | target
    if main == "pixel_values" or main == "pixel_values_videos":
        for picture in _pictures(model.config):
            yield {main: picture}
            yield {main: picture} | text
            yield {main: picture} | target
    if text:
        yield text | target
        for name in ("pixel_values", "input_features", "input_values"):
            if name in names:
                for other in _pictures(model.config) if name == "pixel_values" else _sounds(model.config, name):
                    yield text | target | {name: other}
    if "bbox" in names:
        yield text | target | {"bbox": torch.arange(4).expand(BATCH, TOKENS, 4)}
    if "query_embeds" in names:
        queries = {"query_embeds": torch.randn(BATCH, TOKENS, model.config.hidden_size)}
        yield queries
        seen = getattr(model.config, "encoder_hidden_size", None)
        if seen and "encoder_hidden_states" in names:
            yield queries | {"encoder_hidden_states": torch.randn(BATCH, TOKENS, seen)}
    if main == "past_values" and hasattr(model.config, "context_length"):
        yield {main: torch.randn(BATCH, model.config.context_length, model.config.num_input_channels)}
    if "inputs_embeds" in names and not text:
        yield {"inputs_embeds": torch.randn(BATCH, TOKENS, model.config.hidden_size)}
    if "hidden_states" in names:
        yield {"hidden_states": torch.randn(BATCH, TOKENS, model.config.hidden_size)}


def valid_tokens(inputs: Inputs) -> Tensor | None:
    """Bool ``(B, L)``, the places that belong to tokens."""
    for name in ("decoder_attention_mask", "attention_mask"):
        if name in inputs:
            return inputs[name].bool()
    return None


def _text(prefix: str, names: Any) -> Inputs:
    ids = torch.randint(3, WORDS - SPECIAL, (BATCH, TOKENS))
    if f"{prefix}attention_mask" not in names:
        return {f"{prefix}input_ids": ids}
    mask = torch.ones_like(ids)
    mask[1, SHORT:] = 0
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}


def _of(config: Any, *kinds: str) -> Any:
    """The part of a configuration that is about pictures, or about sound."""
    for name in kinds:
        inner = getattr(config, name, None)
        if inner is not None and not isinstance(inner, (str, dict)):
            return inner
    return config


def _patches(config: Any, names: Any) -> Iterator[Inputs]:
    """Two pictures of 4 x 4 and 2 x 4 patches, flat or square, as models that take pictures of any size want them."""
    main = "hidden_states" if "hidden_states" in names else "pixel_values"
    patch = getattr(config, "patch_size", 8)
    channels = getattr(config, "in_channels", getattr(config, "num_channels", 3))
    grid: Inputs = {"grid_thw": torch.tensor([[1, 4, 4], [1, 2, 4]])}
    if "merge_sizes" in names:
        grid["merge_sizes"] = torch.tensor([1, 1])
    if isinstance(patch, int):
        for frames in (getattr(config, "temporal_patch_size", 1), 2):
            yield {main: torch.randn(24, channels * frames * patch * patch)} | grid
        yield {main: torch.randn(24, channels, patch, patch)} | grid


def _padded_patches(config: Any) -> Inputs:
    """Two pictures of 4 x 4 and 2 x 4 patches, the second padded."""
    valid = torch.ones(BATCH, 16, dtype=torch.long)
    valid[1, 8:] = 0
    return {
        "pixel_values": torch.randn(BATCH, 16, config.num_channels * config.patch_size**2),
        "pixel_attention_mask": valid,
        "spatial_shapes": torch.tensor([[4, 4], [2, 4]]),
    }


def _pictures(config: Any) -> Iterator[Tensor]:
    of = _of(config, "vision_config", "image_config", "encoder", "backbone_config")
    size = getattr(of, "image_size", None) or getattr(config, "image_size", None) or 32
    sides = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = getattr(of, "num_channels", getattr(of, "in_channels", 3))
    frames = getattr(of, "num_frames", getattr(of, "frames_per_clip", None))
    if frames:
        yield torch.randn(BATCH, frames, channels, *sides)
    yield torch.randn(BATCH, channels, *sides)
    yield torch.randn(BATCH, channels, 64, 64)


def _sounds(config: Any, name: str) -> Iterator[Tensor]:
    of = _of(config, "audio_config", "encoder_config", "encoder")
    if name == "input_values":
        yield torch.randn(BATCH, 4000)
        yield torch.randn(BATCH, 1, 4000)
        if hasattr(of, "num_mel_bins") and hasattr(of, "max_length"):
            yield torch.randn(BATCH, of.max_length, of.num_mel_bins)
        yield torch.randn(BATCH, TOKENS, of.hidden_size)
    named = ("num_mel_bins", "num_mel_channels", "input_dim", "input_feat_per_channel", "feature_projection_input_dim")
    bins = next((size for one in named if (size := getattr(of, one, None))), 16)
    positions = getattr(of, "max_source_positions", None)
    if positions:
        yield torch.randn(BATCH, bins, 2 * positions)
    yield torch.randn(BATCH, 64, bins)
    yield torch.randn(BATCH, bins, 64)

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
        yield _patches(model.config)
    if main in ("input_features", "input_values", "audio_values"):
        for sound in _sounds(model.config, main):
            yield {main: sound} | target
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
        yield {"query_embeds": torch.randn(BATCH, TOKENS, model.config.hidden_size)}
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


def _patches(config: Any) -> Inputs:
    """Two pictures of 4 x 4 and 2 x 4 patches, as models that take pictures of any size want them."""
    patch = getattr(config, "patch_size", 8)
    features = getattr(config, "in_channels", 3) * getattr(config, "temporal_patch_size", 1) * patch * patch
    return {"hidden_states": torch.randn(24, features), "grid_thw": torch.tensor([[1, 4, 4], [1, 2, 4]])}


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
    bins = getattr(of, "num_mel_bins", getattr(of, "num_mel_channels", getattr(of, "input_dim", 16)))
    positions = getattr(of, "max_source_positions", None)
    if positions:
        yield torch.randn(BATCH, bins, 2 * positions)
    yield torch.randn(BATCH, 64, bins)
    yield torch.randn(BATCH, bins, 64)

"""Which module of a model is which layer: its name, its number, and which side of an encoder-decoder it is on."""

from __future__ import annotations

import re

from torch import nn

from regard.recording.layer import Kind

_CROSS = re.compile(r"cross|encdec|encoder_attn|multihead_attn", re.IGNORECASE)
_ENCODER = re.compile(r"(^|\.)encoder(\.|$)")
_DECODER = re.compile(r"(^|\.)decoder(\.|$)")


def names_of(model: nn.Module) -> dict[int, str]:
    """The name of every module by its id; the model's own name is its class."""
    return {id(module): name or type(module).__name__ for name, module in model.named_modules()}


def index_of(name: str, module: nn.Module, order: int) -> int:
    """The layer's number: what the module says, or the first number in its name, or how many came before it."""
    stated = getattr(module, "layer_idx", None)
    if isinstance(stated, int) and not isinstance(stated, bool):
        return stated
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return numbers[0] if numbers else order


def kind_of(name: str, module: nn.Module) -> Kind:
    """``"cross"`` where queries and keys come from two sequences, else the side that the name tells."""
    if getattr(module, "is_cross_attention", False) is True or _CROSS.search(name):
        return "cross"
    if _DECODER.search(name):
        return "decoder"
    return "encoder" if _ENCODER.search(name) else "self"

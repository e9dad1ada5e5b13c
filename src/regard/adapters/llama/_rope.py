"""Rotary parameters as transformers' configurations write them, as a `RotaryEmbedding`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from regard._errors import ArgumentError, UnsupportedError
from regard.nn import DynamicNTK, LinearScaling, Llama3Scaling, RotaryEmbedding, RotaryScaling, YaRN
from regard.nn.rotary import Layout

_KNOWN = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "truncate",
        "mscale", "mscale_all_dim",
    ),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}  # fmt: skip
"""The rope types that have a `RotaryScaling`, and their parameters beside ``rope_theta``."""


def rotary_embedding(
    parameters: Mapping[str, Any], dim: int, max_length: int, layout: Layout = "half-split"
) -> RotaryEmbedding:
    """The embedding that a configuration's ``rope_parameters`` mean.

    Args:
        parameters: ``rope_type``, ``rope_theta`` and those of the type.
        dim: features of a head that are turned.
        max_length: ``max_position_embeddings``, from which ``dynamic`` grows.
        layout: which features form a pair.

    Raises:
        UnsupportedError: a type that regard has no scaling for.
        ArgumentError: a parameter that the type does not have.
    """
    kind = parameters.get("rope_type", "default")
    if kind not in _KNOWN:
        reason = f"rope_type={kind!r} has no scaling in regard.nn"
        raise UnsupportedError(f"{reason}, which has {', '.join(map(repr, _KNOWN))}.", [reason])
    given = {key: x for key, x in parameters.items() if x is not None}
    for key in given:
        if key not in (*_KNOWN[kind], "rope_type", "type", "rope_theta", "partial_rotary_factor"):
            raise ArgumentError(f"rope_type={kind!r} has the parameters {', '.join(_KNOWN[kind])}: got {key!r}.")
    return RotaryEmbedding(dim, base=given["rope_theta"], layout=layout, scaling=_scaling(kind, given, max_length))


def _scaling(kind: str, given: Mapping[str, Any], max_length: int) -> RotaryScaling | None:
    if kind == "linear":
        return LinearScaling(given["factor"])
    if kind == "dynamic":
        return DynamicNTK(given["factor"], max_length)
    if kind == "llama3":
        return Llama3Scaling(
            given["factor"],
            given["original_max_position_embeddings"],
            given["low_freq_factor"],
            given["high_freq_factor"],
        )
    if kind == "yarn":
        original = given["original_max_position_embeddings"]
        factor = given.get("factor", max_length / original)
        scale = given.get("attention_factor")
        if scale is None and given.get("mscale") and given.get("mscale_all_dim"):
            scale = _longer(factor, given["mscale"]) / _longer(factor, given["mscale_all_dim"])
        optional = {key: given[key] for key in ("beta_fast", "beta_slow", "truncate") if key in given}
        return YaRN(factor, original, attention_factor=scale, **optional)
    return None


def _longer(factor: float, times: float) -> float:
    return 0.1 * times * math.log(factor) + 1.0 if factor > 1 else 1.0

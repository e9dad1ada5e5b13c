"""Switching models to regard, for good or for the time of a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from regard._errors import KindError, UnsupportedError, describe
from regard.adapters.huggingface.registry import NAME, register

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def use(model: PreTrainedModel) -> None:
    """`register`, and ``model.set_attn_implementation("regard")``, which must have reached every part of the model.

    transformers only warns where a part computes its attention in its own way and cannot be switched.

    Raises:
        KindError: no model of transformers.
        UnsupportedError: parts that cannot be switched, by their names; the model is left as it was.
    """
    register()
    configs = _configs(model)
    before = [config._attn_implementation for _, _, config in configs]
    cannot = [f"{name or 'the model'} ({kind})" for name, kind, _ in _stubborn(model)]
    if cannot:
        raise UnsupportedError(
            f"{type(model).__name__} has parts whose attention transformers cannot replace: {', '.join(cannot)}. They "
            'would go on with eager attention; switch the others with model.set_attn_implementation("regard").'
        )
    try:
        model.set_attn_implementation(NAME)
    except Exception:
        _restore(configs, before)
        raise


@contextmanager
def using(model: PreTrainedModel) -> Iterator[None]:
    """`use` the model until the block is left, then switch every part back to what it had.

    Raises:
        KindError, UnsupportedError: as `use`.
    """
    configs = _configs(model)
    before = [config._attn_implementation for _, _, config in configs]
    use(model)
    try:
        yield
    finally:
        _restore(configs, before)


@contextmanager
def output_attentions(model: PreTrainedModel) -> Iterator[None]:
    """Let every forward pass in the block return attentions, as ``config.output_attentions = True`` does for eager.

    transformers refuses that setting for any other implementation, because torch's kernels return nothing. The call's
    own ``output_attentions=True`` needs no block.

    Raises:
        KindError: no model of transformers.
    """
    configs = _configs(model)
    before = [config._output_attentions for _, _, config in configs]
    try:
        for _, _, config in configs:
            config._output_attentions = True
        yield
    finally:
        for (_, _, config), value in zip(configs, before, strict=True):
            config._output_attentions = value


def cache(model: PreTrainedModel, max_length: int | None = None) -> Cache:
    """A cache for ``model(..., past_key_values=cache)`` and ``model.generate(..., past_key_values=cache)``.

    Layers that attend to everything keep their keys and values in `regard.cache.FullCache`, so that a step writes one
    token where transformers' own dynamic cache copies all before it. Layers with a window or a state keep transformers'
    own.

    Args:
        model: a model that decodes.
        max_length: the most tokens, prompt and answer together, for which memory is taken once; default: no limit, and
            memory grows by doubling.

    Raises:
        KindError: no model of transformers, ``max_length`` no int.
        ArgumentError: ``max_length`` below 1; later, more tokens than that.
    """
    from regard.adapters.huggingface.caches import full_cache

    _configs(model)
    return full_cache(model.config, max_length)


def _configs(model: PreTrainedModel) -> list[tuple[str, str, Any]]:
    """Every configuration in the model, once, with the name and class of the first part that has it."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise KindError(f"this takes a model of transformers: got {describe(type(model))}.")
    found: dict[int, tuple[str, str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            waiting = [module.config]
            while waiting:
                config = waiting.pop()
                found.setdefault(id(config), (name, type(module).__name__, config))
                waiting += [inner for key in config.sub_configs if (inner := getattr(config, key, None)) is not None]
    return list(found.values())


def _stubborn(model: PreTrainedModel) -> Iterator[tuple[str, str, Any]]:
    from transformers import PreTrainedModel

    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and not module._can_set_attn_implementation():
            yield name, type(module).__name__, module.config


def _restore(configs: list[tuple[str, str, Any]], implementations: list[str]) -> None:
    for (_, _, config), implementation in zip(configs, implementations, strict=True):
        config._attn_implementation_internal = implementation

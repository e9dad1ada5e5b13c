"""Letting regard compute a model's attention for a while: Hugging Face models, and `torch.nn.MultiheadAttention`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import nn

from regard._errors import ArgumentError, UnsupportedError
from regard._replace import replace

Undo = Callable[[], None]


class _Switched:
    """A model that is switched, by how many, how to switch back, and what could not be."""

    def __init__(self, model: nn.Module, undo: Undo, skipped: dict[str, str]) -> None:
        self.model, self.undo, self.skipped, self.users = model, undo, skipped, 0


_switched: dict[int, _Switched] = {}
_lock = Lock()


@contextmanager
def switched(model: nn.Module) -> Iterator[dict[str, str]]:
    """Compute the attention of ``model`` by regard inside the block; of several blocks at once, the last switches back.

    Gives the places that were left as they are, each with the reason.
    """
    with _lock:
        entry = _switched.get(id(model))
        if entry is None:
            entry = _switched[id(model)] = _switch(model)
        entry.users += 1
    try:
        yield entry.skipped
    finally:
        with _lock:
            entry.users -= 1
            if not entry.users:
                del _switched[id(model)]
                entry.undo()


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run what `torch.compile` made of a model's modules as it was before, inside the block."""
    if not any(_is_compiled(module) for module in model.modules()):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _switch(model: nn.Module) -> _Switched:
    if isinstance(model, nn.MultiheadAttention):
        raise ArgumentError(
            "record replaces torch.nn.MultiheadAttention inside a model, and this is one itself. Record the model that "
            "holds it, or what regard.adapters.torch_mha.from_torch(module) makes of it."
        )
    undo: list[Undo] = []
    try:
        for one in _hugging_face(model):
            undo.append(_to_regard(one))
        replacement = replace(model)
        undo.append(replacement.undo)
    except BaseException:
        _all(undo)
        raise
    return _Switched(model, lambda: _all(undo), replacement.skipped)


def _all(undo: list[Undo]) -> None:
    for one in reversed(undo):
        one()


def _hugging_face(model: nn.Module) -> list[Any]:
    """The outermost Hugging Face models in ``model``, itself included."""
    transformers = sys.modules.get("transformers")
    if transformers is None:
        return []
    found: list[Any] = []

    def visit(module: nn.Module) -> None:
        if isinstance(module, transformers.PreTrainedModel):
            found.append(module)
            return
        for child in module.children():
            visit(child)

    visit(model)
    return found


def _to_regard(model: Any) -> Undo:
    """Switch one Hugging Face model to regard and return how to go back."""
    from regard.adapters import huggingface

    huggingface.register()
    before = [(config, config._attn_implementation_internal) for config in _configs(model)]

    def undo() -> None:
        for config, implementation in before:
            config._attn_implementation_internal = implementation

    try:
        model.set_attn_implementation("regard")
    except BaseException:
        undo()
        raise
    if model.config._attn_implementation != "regard":
        undo()
        raise UnsupportedError(
            f"{type(model).__name__} computes attention in code of its own and not through transformers' attention "
            "interface, so that it cannot be recorded."
        )
    return undo


def _configs(model: Any) -> list[Any]:
    """Every config of a model and of its parts, each once."""
    found: dict[int, Any] = {}
    todo = [getattr(module, "config", None) for module in model.modules()]
    while todo:
        config: Any = todo.pop()
        if hasattr(config, "_attn_implementation_internal") and id(config) not in found:
            found[id(config)] = config
            todo += [getattr(config, name, None) for name in config.sub_configs]
    return list(found.values())

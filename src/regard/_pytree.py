"""Masks and score changes as torch pytrees: `torch.compile`, `torch.export` and `torch.func` see tensors as leaves.

What is no tensor is the structure. Two values of one structure share a compiled graph, whatever their tensors hold.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import GetAttrKey, register_pytree_node

Context = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]
"""The names of the children, and every other attribute with its value."""

_known: set[type] = set()
_OF_ANY_MODULE = frozenset(vars(nn.Module()))


def register(cls: type) -> None:
    """Make ``cls`` a pytree whose children are its tensors, its values of such classes, and tuples of them."""
    _known.add(cls)
    register_pytree_node(
        cls,
        _flatten,
        partial(_unflatten, cls),
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        to_dumpable_context=list,
        from_dumpable_context=_from_lists,
        flatten_with_keys_fn=_flatten_with_keys,
    )


def _attributes(value: object) -> dict[str, Any]:
    """The attributes by name; a module's tensors under their own names."""
    if not isinstance(value, nn.Module):
        return vars(value)
    own = {name: x for name, x in vars(value).items() if name not in _OF_ANY_MODULE}
    return {**own, **value._modules, **value._parameters, **value._buffers}


def _is_child(x: object) -> bool:
    return isinstance(x, Tensor) or type(x) in _known or (type(x) is tuple and any(map(_is_child, x)))


def _flatten(value: object) -> tuple[list[Any], Context]:
    attributes = _attributes(value)
    names = tuple(name for name, x in attributes.items() if _is_child(x))
    rest = tuple((name, x) for name, x in attributes.items() if name not in names)
    return [attributes[name] for name in names], (names, rest)


def _flatten_with_keys(value: object) -> tuple[list[tuple[Any, Any]], Context]:
    children, context = _flatten(value)
    return [(GetAttrKey(name), child) for name, child in zip(context[0], children, strict=True)], context


def _unflatten(cls: Any, children: Any, context: Context) -> Any:
    # Without the constructor and its checks: torch puts other things than tensors into the leaves' places.
    value = cls.__new__(cls)
    if isinstance(value, nn.Module):
        nn.Module.__init__(value)
    own = vars(value)
    own.update(context[1])
    for name, child in zip(context[0], children, strict=True):
        kind = "_parameters" if isinstance(child, nn.Parameter) else "_buffers"
        (own[kind] if isinstance(value, nn.Module) and isinstance(child, Tensor) else own)[name] = child
    return value


def _from_lists(context: Any) -> Context:
    names, rest = context
    return tuple(names), tuple((name, x) for name, x in rest)

"""Matching the keys of a checkpoint: every key finds its place and every place its key, or an error says which not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError, ShapeError
from regard.adapters._nearest import nearest


def below(state_dict: Mapping[str, Tensor], prefix: str, known: Iterable[str]) -> dict[str, Tensor]:
    """The entries whose key starts with ``prefix``, without it.

    Raises:
        ArgumentError: no such entry; the nearest key of the checkpoint is named.
    """
    found = {key.removeprefix(prefix): x for key, x in state_dict.items() if key.startswith(prefix)}
    if not found:
        wanted = prefix + next(iter(known))
        near = nearest(wanted, state_dict)
        raise ArgumentError(f"the checkpoint has no key that starts with {prefix!r}, such as {wanted!r}.{near}")
    return found


def match(given: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], prefix: str = "", hint: str = "") -> None:
    """Raise unless ``given`` has the keys of ``wanted`` and no others, in its shapes.

    Args:
        given: the checkpoint's tensors.
        wanted: the shape of each key that has a place.
        prefix: what errors put before a key.
        hint: a further sentence for a key that is missing or too many.

    Raises:
        ArgumentError: a key without a place or a place without a key, with the nearest one.
        ShapeError: a tensor of another shape.
    """
    names = [prefix + key for key in wanted]
    for key in given:
        if key not in wanted:
            raise ArgumentError(
                f"the checkpoint has {prefix + key!r}, for which the module has no place."
                f"{nearest(prefix + key, names)}{hint}"
            )
    for key, shape in wanted.items():
        if key not in given:
            raise ArgumentError(
                f"the module needs {prefix + key!r}, which the checkpoint lacks."
                f"{nearest(prefix + key, [prefix + k for k in given])}{hint}"
            )
        if given[key].shape != shape:
            raise ShapeError(
                f"{prefix + key!r} is {tuple(shape)} in the module, but {tuple(given[key].shape)} in the checkpoint."
            )


def shapes(module: nn.Module, names: Mapping[str, str]) -> dict[str, torch.Size]:
    """The shape of every tensor that ``module`` saves, under another convention's name for it.

    Args:
        module: what is saved.
        names: a module's or parameter's name here to its name there.

    Raises:
        ArgumentError: a tensor that the other convention has no name for.
    """
    found = {}
    for key, x in module.state_dict().items():
        part, dot, rest = key.partition(".")
        if part not in names:
            raise ArgumentError(
                f"the module has {key!r}, for which this kind of checkpoint has no name; it has "
                f"{', '.join(names.values())}."
            )
        found[names[part] + dot + rest] = x.shape
    return found

"""Indexes in the caller's shape, ``weights[b, h, i0:i1, j0:j1]``, as a selection of ``(B, H, Lq, Lk)``."""

from __future__ import annotations

import operator
from typing import NamedTuple, SupportsIndex, cast

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, describe
from regard.weights.part import Places, Selection


class Resolved(NamedTuple):
    """A selection, and the shape that its part takes in the caller's eyes."""

    selection: Selection
    shape: tuple[int, ...]


class _Axis(NamedTuple):
    places: Places
    kept: bool

    @property
    def size(self) -> int:
        return self.places.stop - self.places.start if isinstance(self.places, slice) else len(self.places)


def resolve(index: object, shape: tuple[int, ...], device: torch.device) -> Resolved:
    """What ``tensor[index]`` selects of a tensor of that shape, ``(…, H, Lq, Lk)`` or ``(Lq, Lk)``.

    Ints, slices with any step, ``...``, and one list or 1-D tensor of ints or bools.

    Raises:
        ArgumentError: too many indexes, one out of range, more than one list or tensor.
        KindError: an index of another kind.
    """
    axes = [_axis(one, size, device) for one, size in zip(_expanded(index, len(shape)), shape, strict=True)]
    if sum(isinstance(given, Tensor | list) for given in (index if isinstance(index, tuple) else (index,))) > 1:
        raise ArgumentError(
            f"weights take one list or tensor among their indexes: got {_words(index)}. Index the result again, "
            "weights[:, :, rows][..., columns]."
        )
    lead, inner = axes[:-3], axes[-3:]
    heads = inner[0].places if len(inner) == 3 else slice(0, 1)
    rows, cols = (axis.places for axis in inner[-2:])
    kept = tuple(axis.size for axis in axes if axis.kept)
    return Resolved(Selection(_flattened(lead, shape[: len(lead)], device), heads, rows, cols), kept)


def _expanded(index: object, ndim: int) -> list[object]:
    """One index a dim: ``...`` and what is left out at the end become full slices."""
    given = list(index) if isinstance(index, tuple) else [index]
    dots = [n for n, one in enumerate(given) if one is Ellipsis]
    if len(dots) > 1 or len(given) - len(dots) > ndim:
        raise ArgumentError(f"weights of {ndim} dims take at most {ndim} indexes and one '...': got {_words(index)}.")
    at = dots[0] if dots else len(given)
    missing = ndim - (len(given) - len(dots))
    return given[:at] + [slice(None)] * missing + given[at + 1 :]


def _axis(index: object, size: int, device: torch.device) -> _Axis:
    if isinstance(index, slice):
        places = range(size)[index]
        if places.step == 1:
            return _Axis(slice(places.start, max(places.start, places.stop)), True)
        return _Axis(torch.arange(places.start, places.stop, places.step, device=device), True)
    if isinstance(index, list):
        index = torch.tensor(index, dtype=None if index else torch.int64, device=device)
    if isinstance(index, Tensor) and index.ndim == 1:
        return _Axis(_checked_places(index, size).to(device), True)
    try:
        if isinstance(index, bool) or (isinstance(index, Tensor) and index.ndim):
            raise TypeError
        place = operator.index(cast(SupportsIndex, index))
    except TypeError:
        raise KindError(
            "weights are indexed by ints, slices, '...' and one list or 1-D tensor of ints or bools: got "
            f"{describe(index)}."
        ) from None
    if not -size <= place < size:
        raise ArgumentError(f"an index of a dim of size {size} lies in {-size} … {size - 1}: got {place}.")
    return _Axis(slice(place % size, place % size + 1), False)


def _checked_places(index: Tensor, size: int) -> Tensor:
    if index.dtype == torch.bool:
        if len(index) != size:
            raise ArgumentError(f"a bool index of a dim of size {size} has as many entries: got {len(index)}.")
        return index.nonzero()[:, 0]
    if index.is_floating_point() or index.is_complex():
        raise KindError(f"an index tensor holds ints or bools: got {describe(index)}.")
    index = index.to(torch.int64)
    if index.numel() and (int(index.min()) < -size or int(index.max()) >= size):
        raise ArgumentError(f"indexes of a dim of size {size} lie in {-size} … {size - 1}: got {index.tolist()}.")
    return torch.where(index < 0, index + size, index)


def _flattened(axes: list[_Axis], sizes: tuple[int, ...], device: torch.device) -> Places:
    """The places of the leading dims in the flattened batch, row-major."""
    if not axes:
        return slice(0, 1)
    if len(axes) == 1:
        return axes[0].places
    flat = torch.zeros((1,), dtype=torch.int64, device=device)
    for axis, size in zip(axes, sizes, strict=True):
        p = axis.places
        places = torch.arange(p.start, p.stop, device=device) if isinstance(p, slice) else p
        flat = (flat[:, None] * size + places).flatten()
    return flat


def _words(index: object) -> str:
    given = index if isinstance(index, tuple) else (index,)
    return ", ".join("..." if one is Ellipsis else describe(one) for one in given)

"""Masks and score changes as data: their structure as JSON, their tensors beside it; no code is stored or run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regard._coordinates import Frame
from regard._errors import RecordError, RegardError, describe
from regard.masks import (
    Causal,
    Chunked,
    Dense,
    Dilated,
    Document,
    Everything,
    Mask,
    Nothing,
    Padding,
    Prefix,
    SlidingWindow,
)
from regard.masks.algebra import And, Not, Or
from regard.masks.padding import ValidKeys
from regard.recording.pieces import Intervals
from regard.scores import Alibi, Bias, RelativeBias, ScoreModification, Softcap

Data = dict[str, Any]
MAX_BITS = 1 << 28
"""Pairs of query and key up to which a mask that is a function is stored as what it says of each."""

_NUMBERS: dict[type[Mask], tuple[str, ...]] = {
    Everything: (),
    Nothing: (),
    Causal: (),
    SlidingWindow: ("left", "right"),
    Prefix: ("length",),
    Chunked: ("size",),
    Dilated: ("step",),
}
_TENSORS: dict[type[Mask], Callable[..., Mask]] = {
    Document: Document,
    Padding: Padding,
    ValidKeys: Padding.from_valid,
    Dense: Dense,
}
_DEEPEST = 40


class Tensors:
    """Tensors of a file under numbered names."""

    def __init__(self, prefix: str, held: dict[str, Tensor]) -> None:
        self._prefix, self._held, self._count = prefix, held, 0

    def put(self, x: Tensor) -> str:
        """Store ``x`` and return its name."""
        name = f"{self._prefix}.{self._count}"
        self._count += 1
        self._held[name] = x.detach()
        return name


def mask_data(mask: Mask, tensors: Tensors, frame: Frame, notes: list[str]) -> Data:
    """A mask as data. One that is a function becomes what it says of each pair, which goes into ``notes``.

    Raises:
        RecordError: a function that says something of too many pairs.
    """
    kind = type(mask)
    if kind in _NUMBERS:
        return {"is": kind.__name__, "numbers": [getattr(mask, name) for name in _NUMBERS[kind]]}
    if isinstance(mask, And | Or):
        return {"is": kind.__name__, "parts": [mask_data(part, tensors, frame, notes) for part in mask.parts]}
    if isinstance(mask, Not):
        return {"is": "Not", "parts": [mask_data(mask.part, tensors, frame, notes)]}
    if isinstance(mask, Intervals):
        return {"is": "Intervals", "tensors": [tensors.put(t) for t in mask.tensors()], "numbers": [mask.k_len]}
    if kind in _TENSORS:
        return {"is": kind.__name__, "tensors": [tensors.put(t) for t in mask.tensors()]}
    rows = mask.intervals(frame)
    if rows is not None:
        notes.append(f"the mask {mask!r} is kept as the intervals of columns that it allows")
        return mask_data(Intervals(rows.start, rows.stop, rows.k_len), tensors, frame, notes)
    allowed = mask.allowed(frame.everywhere()) if frame.q_len * frame.k_len <= MAX_BITS else None
    if allowed is None or allowed.numel() > MAX_BITS:
        raise RecordError(
            f"the mask {mask!r} is a function, which is never stored, and it says something of {frame.q_len} × "
            f"{frame.k_len} pairs, which is too much to store instead. Use masks of regard, such as SlidingWindow, or "
            "record fewer queries."
        )
    notes.append(f"the mask {mask!r} is kept as what it says of each pair")
    return {"is": "Dense", "tensors": [tensors.put(allowed)]}


def score_mod_data(mod: ScoreModification, tensors: Tensors) -> Data:
    """A score change as data.

    Raises:
        RecordError: one that is a function.
    """
    match mod:
        case Softcap():
            return {"is": "Softcap", "numbers": [mod.cap]}
        case Alibi():
            return {"is": "Alibi", "tensors": [tensors.put(mod.slopes)]}
        case Bias():
            return {"is": "Bias", "tensors": [tensors.put(mod.bias)]}
        case RelativeBias():
            numbers = [mod.num_heads, mod.buckets, mod.max_distance, mod.bidirectional]
            return {"is": "RelativeBias", "tensors": [tensors.put(mod.table)], "numbers": numbers}
    raise RecordError(
        f"the score change {mod!r} is a function, which is never stored: a file that holds code could do anything "
        "where it is opened. Softcap, Alibi, Bias and RelativeBias can be stored."
    )


def read_mask(data: object, tensors: Mapping[str, Tensor], depth: int = 0) -> Mask:
    """The mask that `mask_data` made ``data`` of.

    Raises:
        RecordError: anything else.
    """
    kind, numbers, found = _fields(data, tensors)
    if depth > _DEEPEST:
        raise RecordError(f"a mask of this record is nested more than {_DEEPEST} deep.")
    plain = {cls.__name__: cls for cls in _NUMBERS}
    held = {cls.__name__: make for cls, make in _TENSORS.items()}
    try:
        if kind in plain:
            return plain[kind](*numbers)
        if kind in held:
            return held[kind](*found)
        if kind == "Intervals":
            return _intervals(found, numbers)
        if kind in ("And", "Or", "Not"):
            assert isinstance(data, dict)
            parts = tuple(read_mask(part, tensors, depth + 1) for part in _list(data, "parts"))
            if len(parts) != 1 if kind == "Not" else len(parts) < 2:
                raise RecordError(f"a mask {kind} of this record has {len(parts)} parts.")
            return Not(parts[0]) if kind == "Not" else (And if kind == "And" else Or)(parts)
    except (RegardError, TypeError) as error:
        raise RecordError(f"a mask of this record is broken: {error}") from error
    raise RecordError(f"a mask of this record is a {describe(kind)}, which this version of regard does not know.")


def read_score_mod(data: object, tensors: Mapping[str, Tensor]) -> ScoreModification:
    """The score change that `score_mod_data` made ``data`` of.

    Raises:
        RecordError: anything else.
    """
    kind, numbers, found = _fields(data, tensors)
    try:
        if kind == "Softcap":
            return Softcap(*numbers)
        if kind in ("Alibi", "Bias"):
            return (Alibi if kind == "Alibi" else Bias)(*found)
        if kind == "RelativeBias":
            made = RelativeBias(*numbers)
            [table] = found
            if table.shape != made.table.shape or not table.is_floating_point():
                raise RecordError(f"a RelativeBias of this record has the table {describe(table)}.")
            made.table = nn.Parameter(table, requires_grad=False)
            return made
    except (RegardError, TypeError, ValueError) as error:
        raise RecordError(f"a score change of this record is broken: {error}") from error
    raise RecordError(
        f"a score change of this record is a {describe(kind)}, which this version of regard does not know."
    )


def _intervals(found: list[Tensor], numbers: list[Any]) -> Intervals:
    start, stop = found
    [k_len] = numbers
    fits = start.dtype == stop.dtype == torch.int64 and start.shape == stop.shape and start.ndim == 3
    if not fits or not isinstance(k_len, int) or not start.shape[2]:
        raise RecordError(f"intervals of this record are {describe(start)} and {describe(stop)}.")
    if start.numel() and not (int(start.min()) >= 0 and int(stop.max()) <= k_len and bool((start <= stop).all())):
        raise RecordError(f"intervals of this record reach beyond its {k_len} keys.")
    return Intervals(start, stop, k_len)


def _fields(data: object, tensors: Mapping[str, Tensor]) -> tuple[str, list[Any], list[Tensor]]:
    if not isinstance(data, dict) or not isinstance(data.get("is"), str):
        raise RecordError(f"a mask or score change of this record is no description of one: got {describe(data)}.")
    names = _list(data, "tensors")
    if not all(isinstance(name, str) and name in tensors for name in names):
        raise RecordError(f"a mask or score change of this record lacks one of its tensors {names}.")
    return data["is"], _list(data, "numbers"), [tensors[name] for name in names]


def _list(data: Data, name: str) -> list[Any]:
    found = data.get(name, [])
    if not isinstance(found, list):
        raise RecordError(f"{name} of a mask or score change of this record is no list: got {describe(found)}.")
    return found

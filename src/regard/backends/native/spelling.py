"""A mask as an operator takes it: its structure as text, its numbers and its tensors as lists.

``Causal() & Document(ids)`` is ``"And 2 Causal Document t -"`` with one tensor. New tensors and numbers leave the text
as it is, and so the compiled graph.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from regard.masks import Causal, Chunked, Dense, Dilated, Document, Everything, Mask, Nothing, Prefix, SlidingWindow
from regard.masks.algebra import And, Not, Or
from regard.masks.padding import Padding, ValidKeys

_FIELDS: dict[str, tuple[type[Mask], tuple[str, ...]]] = {
    "Everything": (Everything, ()),
    "Nothing": (Nothing, ()),
    "Causal": (Causal, ()),
    "SlidingWindow": (SlidingWindow, ("left", "right")),
    "Prefix": (Prefix, ("length",)),
    "Chunked": (Chunked, ("size",)),
    "Dilated": (Dilated, ("step",)),
    "Document": (Document, ("ids", "k_ids")),
    "Padding": (Padding, ("lengths",)),
    "ValidKeys": (ValidKeys, ("valid",)),
    "Dense": (Dense, ("_allowed",)),
}
"""Each primitive, and the attributes that its constructor takes, in that order."""

Spelled = tuple[str, list[int], list[Tensor]]


def spell(mask: Mask) -> Spelled | None:
    """Text, numbers and tensors of ``mask``; None for one that holds a function, or that is not regard's own."""
    if isinstance(mask, (And, Or)):
        words = f"{type(mask).__name__} {len(mask.parts)}"
        numbers: list[int] = []
        tensors: list[Tensor] = []
        for part in mask.parts:
            spelled = spell(part)
            if spelled is None:
                return None
            words, numbers, tensors = f"{words} {spelled[0]}", numbers + spelled[1], tensors + spelled[2]
        return words, numbers, tensors
    if isinstance(mask, Not):
        spelled = spell(mask.part)
        return None if spelled is None else (f"Not {spelled[0]}", spelled[1], spelled[2])
    return _spell_primitive(mask)


def _spell_primitive(mask: Mask) -> Spelled | None:
    name = type(mask).__name__
    if name not in _FIELDS or type(mask) is not _FIELDS[name][0]:
        return None
    words = name
    numbers, tensors = [], []
    for field in _FIELDS[name][1]:
        value = getattr(mask, field)
        if value is None:
            words += " -"
        elif isinstance(value, Tensor):
            words += " t"
            tensors.append(value)
        else:
            words += " n"
            numbers.append(value)
    return words, numbers, tensors


def read(text: str, numbers: list[int], tensors: list[Tensor]) -> Mask:
    """The mask that `spell` took apart."""
    return _read(iter(text.split()), iter(numbers), iter(tensors))


def _read(words: Iterator[str], numbers: Iterator[int], tensors: Iterator[Tensor]) -> Mask:
    name = next(words)
    if name == "Not":
        return Not(_read(words, numbers, tensors))
    if name in ("And", "Or"):
        count = int(next(words))
        parts = tuple(_read(words, numbers, tensors) for _ in range(count))
        return And(parts) if name == "And" else Or(parts)
    kind, fields = _FIELDS[name]
    source: dict[str, Iterator[int] | Iterator[Tensor]] = {"n": numbers, "t": tensors}
    given = (next(words) for _ in fields)
    return kind(*(None if word == "-" else next(source[word]) for word in given))

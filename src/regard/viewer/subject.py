"""What a viewer shows: recorded attention calls with their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from regard._call import Call
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard._inspect import Inspection
from regard.head_scores import HeadScores
from regard.weights import AttentionWeights


class RecordedLayer(Protocol):
    """What the viewer reads of a recorded layer."""

    @property
    def name(self) -> str:
        """The module's name."""

    @property
    def index(self) -> int:
        """The layer's number in the model."""

    @property
    def heads(self) -> Sequence[int]:
        """The number, in the model, of each recorded head."""

    @property
    def weights(self) -> AttentionWeights:
        """The layer's attention weights."""


class Recorded(Protocol):
    """What the viewer reads of a record; `regard.record` makes them."""

    @property
    def layers(self) -> Sequence[RecordedLayer]:
        """The recorded layers."""

    @property
    def tokens(self) -> Sequence[str] | None:
        """One string a key, of every batch entry or of each."""

    @property
    def meta(self) -> Mapping[str, object]:
        """What is known about the model and the run."""


@dataclass(frozen=True)
class Layer:
    """One layer of one batch entry.

    Attributes:
        index: its number in the model.
        name: of the module.
        heads: the number, in the model, of each head.
        call: the attention call, values left out.
        lse: ``(B, H, Lq)``.
        entry: the batch entry that is shown.
    """

    index: int
    name: str
    heads: tuple[int, ...]
    call: Call
    lse: Tensor
    entry: int

    @property
    def rows(self) -> int:
        """Number of queries."""
        return self.call.q.shape[2]

    @property
    def cols(self) -> int:
        """Number of keys."""
        return self.call.k.shape[2]


@dataclass(frozen=True)
class Subject:
    """What one page shows of one record.

    Attributes:
        title: what it is called.
        layers: in the order of the grid's rows.
        tokens: one string a key; None where they are not known.
        query_tokens: one string a query, where queries are not the last keys.
        facts: lines of the page's colophon, name and value.
        scores: name of a head score to its value for each layer and head, in the order of ``layers``.
    """

    title: str
    layers: tuple[Layer, ...]
    tokens: tuple[str, ...] | None = None
    query_tokens: tuple[str, ...] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, list[list[float]]] = field(default_factory=dict)


def subject_of(
    record: object,
    *,
    tokens: Sequence[str] | None = None,
    query_tokens: Sequence[str] | None = None,
    title: str | None = None,
    entry: int = 0,
    scores: Mapping[str, Sequence[Sequence[float]]] | HeadScores | None = None,
) -> Subject:
    """``record`` as a `Subject`.

    Args:
        record: a record, an `Inspection`, lazy weights, or a sequence of the last two, one a layer.
        tokens: one string a key; default: the record's own.
        query_tokens: one string a query; default: the record's own, or the last of ``tokens``.
        title: default: the model's name if the record knows it.
        entry: the batch entry to show.
        scores: what ``record.head_scores()`` returns, or name to a row of numbers for each layer.

    Raises:
        KindError: something that holds no attention.
        ShapeError: not as many tokens as keys or queries, scores that do not fit the layers and heads.
        ArgumentError: nothing to show, a batch entry that is not there.
    """
    layers = tuple(_layers(record, entry))
    if not layers:
        raise ArgumentError("a page shows at least one layer: got a record without any.")
    meta: Mapping[str, object] = getattr(record, "meta", {}) or {}
    keys = _strings("tokens", tokens if tokens is not None else getattr(record, "tokens", None), entry)
    queries = _strings(
        "query_tokens", query_tokens if query_tokens is not None else getattr(record, "query_tokens", None), entry
    )
    longest, rows = max(x.cols for x in layers), max(x.rows for x in layers)
    if keys is not None and len(keys) < longest:
        raise ShapeError(f"tokens has one string a key: got {len(keys)} for {longest} keys.")
    if queries is not None and len(queries) < rows:
        raise ShapeError(f"query_tokens has one string a query: got {len(queries)} for {rows} queries.")
    if title is None:
        title = str(meta.get("model") or meta.get("name") or "attention")
    facts = {str(name): describe(value) if isinstance(value, Tensor) else str(value) for name, value in meta.items()}
    table = scores.grids() if isinstance(scores, HeadScores) else scores or {}
    return Subject(title, layers, keys, queries, facts, _checked_scores(table, layers))


def _layers(record: object, entry: int) -> list[Layer]:
    recorded = getattr(record, "layers", None)
    found: Iterable[object] = [record]
    if isinstance(recorded, Mapping):
        found = recorded.values()
    elif recorded is not None:
        found = recorded
    elif isinstance(record, (list, tuple)):
        found = record
    return [_layer(n, one, entry) for n, one in enumerate(found) if one is not None]


def _layer(place: int, one: object, entry: int) -> Layer:
    weights = one if isinstance(one, AttentionWeights) else getattr(one, "weights", None)
    if not isinstance(weights, AttentionWeights):
        raise KindError(
            "a page is made of a record, of what regard.inspect returns, of its lazy weights, or of a list of these, "
            f"one a layer: got {describe(one)}. Dense tensors go to regard.viewer.head_view."
        )
    call, lse = weights._call, weights._lse
    if not 0 <= entry < call.q.shape[0]:
        raise ArgumentError(f"entry is a batch entry, 0 … {call.q.shape[0] - 1}: got {entry}.")
    count = call.q.shape[1]
    plain = isinstance(one, (AttentionWeights, Inspection))
    heads = None if plain else getattr(one, "heads", None)
    numbers = tuple(range(count)) if heads is None or isinstance(heads, int) else tuple(int(h) for h in heads)
    if len(numbers) != count:
        raise ShapeError(f"a layer has one number a head: got {len(numbers)} for {count} heads.")
    index = place if plain else int(getattr(one, "index", place))
    name = "" if plain else str(getattr(one, "name", ""))
    return Layer(index, name, numbers, call, lse, entry)


def _strings(name: str, tokens: object, entry: int) -> tuple[str, ...] | None:
    if tokens is None:
        return None
    if isinstance(tokens, str) or not isinstance(tokens, Sequence):
        raise KindError(f"{name} is a list of strings, one a token: got {describe(tokens)}.")
    if not tokens or isinstance(tokens[0], str):
        return tuple(str(t) for t in tokens)
    if not 0 <= entry < len(tokens):
        raise ArgumentError(f"{name} has lists for {len(tokens)} batch entries: got entry {entry}.")
    return _strings(name, tokens[entry], 0)


def _checked_scores(
    scores: Mapping[str, Sequence[Sequence[float]]], layers: tuple[Layer, ...]
) -> dict[str, list[list[float]]]:
    want = [len(layer.heads) for layer in layers]
    table = {name: [[float(x) for x in row] for row in rows] for name, rows in scores.items()}
    for name, rows in table.items():
        if [len(row) for row in rows] != want:
            raise ShapeError(
                f"scores has one number for each of the heads {want} of the {len(layers)} layers: got "
                f"{[len(row) for row in rows]} for {name!r}."
            )
    return table

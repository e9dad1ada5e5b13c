"""What `regard.record` gives: the layers of every run, with their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import Tensor

from regard._errors import ArgumentError, describe
from regard.figures import plot_scores, plot_weights
from regard.figures.heatmap import Colours
from regard.head_scores import HeadScores, Material, Scored, head_similarity, rollout, table_of
from regard.head_scores.compute import Which
from regard.recording.layer import Layer

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

Tokens = list[list[str]]
_FEW_LAYERS = 8


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """One run of a model over one batch of sequences: a forward, or a prompt with what was generated after it.

    Attributes:
        layers: in the order in which the model calls them.
        tokens: the words of the keys, a list for each batch entry; None if they are not known.
        query_tokens: the words of the queries where they are another sequence, as in cross-attention.
        ids: the ids of ``tokens``, int64 ``(B, L)``, or None.
        query_ids: likewise.
    """

    layers: tuple[Layer, ...]
    tokens: Tokens | None = None
    query_tokens: Tokens | None = None
    ids: Tensor | None = None
    query_ids: Tensor | None = None


@dataclass(eq=False, repr=False)
class Record:
    """Queries, keys and logsumexp of a model's attention layers, of which every weight can be computed.

    Made by `regard.record` and `regard.load_record`. Inside the ``with`` block it shows what was recorded so far.

    Attributes:
        meta: what is known about the model and the recording.
        skipped: places of the model that could not be recorded, each with the reason.

    >>> layer = rg.nn.MultiHeadAttention(16, 16, 32, 0.0, num_heads=4)
    >>> with rg.record(layer) as rec:
    ...     out = layer(torch.randn(1, 10, 16))
    >>> rec.layers[0].weights
    <AttentionWeights (1, 4, 10, 10) float32: 1.6 kB if dense, up to 3.2 kFLOP a pass>
    """

    meta: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    _runs: tuple[Run, ...] | None = None
    _source: Callable[[], tuple[Run, ...]] | None = None
    _held: object = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run, in order: forwards one after another, a prompt and its generated tokens as one.

        Raises:
            ArgumentError: nothing was recorded.
            StaleError: queries or keys were changed in place while they were recorded.
        """
        runs = self._runs if self._runs is not None else () if self._source is None else self._source()
        if not runs:
            skipped = "".join(f" {name} was left as it is: {why}." for name, why in self.skipped.items())
            raise ArgumentError(
                "nothing was recorded: no layer that was asked for computed attention through regard inside the block, "
                "in the thread that opened it. rg.nn modules, torch.nn.MultiheadAttention inside a model and Hugging "
                f"Face models with the attention interface do.{skipped}"
            )
        return runs

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the first run."""
        return self.runs[0].layers

    @property
    def tokens(self) -> Tokens | None:
        """The words of the keys of the first run, a list for each batch entry; None if they are not known."""
        return self.runs[0].tokens

    @property
    def query_tokens(self) -> Tokens | None:
        """The words of its queries, where they are another sequence than the keys."""
        return self.runs[0].query_tokens

    def run(self, number: int) -> Record:
        """A record of one run alone, to look at it like a record of its own.

        Raises:
            ArgumentError: there is no such run.
        """
        if not isinstance(number, int) or not 0 <= number < len(self.runs):
            raise ArgumentError(f"this record has the runs 0 … {len(self.runs) - 1}: got {describe(number)}.")
        return Record(dict(self.meta), dict(self.skipped), (self.runs[number],), None, self._held)

    def layer(self, which: int | str, run: int = 0) -> Layer:
        """The layer with a number, or a name, in a run.

        Raises:
            ArgumentError: there is none, or several.
        """
        layers = self.run(run).layers
        found = [one for one in layers if which in (one.index, one.name)]
        if len(found) == 1:
            return found[0]
        raise ArgumentError(f"layer {which!r} names {len(found)} of the recorded layers, which are {_known(layers)}.")

    @property
    def nbytes(self) -> int:
        """Bytes of all queries, keys and logsumexp, in memory or on disk."""
        return sum(layer.nbytes for run in self.runs for layer in run.layers)

    def head_scores(self, names: Which = None) -> HeadScores:
        """Scores of every recorded head as a table: averaged over the batch entries of all runs, with standard errors.

        Args:
            names: names out of `regard.head_scores.DEFAULT`, or scores of `regard.head_scores` that take arguments,
                such as ``Offset(3)``; default: all of `DEFAULT` that the record has what they need for.

        Raises:
            ArgumentError: an unknown name, or a score that was asked for and that no layer has.
        """
        return table_of([[_scored(layer, run) for layer in run.layers] for run in self.runs], names)

    def rollout(self, token: int = -1, run: int = 0) -> Tensor:
        """Where a token's information comes from, ``(B, L)``: `regard.head_scores.rollout` through all layers of a run.

        Raises:
            ShapeError: layers without every query.
        """
        one = self.run(run).runs[0]
        return rollout([_scored(layer, one).material for layer in one.layers], token)

    def head_similarity(self, rows: int = 16, run: int = 0) -> Tensor:
        """The Jensen-Shannon divergence of every two heads, ``(N, N)``, as in `regard.head_scores.head_similarity`."""
        one = self.run(run).runs[0]
        return head_similarity([_scored(layer, one).material for layer in one.layers], rows)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the record to a folder of safetensors and JSON, which `regard.load_record` reads on any machine.

        Masks and score changes are stored as data. A mask that is a function is stored as what it says of each pair,
        and ``meta["notes"]`` of the loaded record says so; a score change that is a function is refused.

        Args:
            path: where the folder will be.
            overwrite: whether to replace a record that is there.

        Raises:
            RecordError: something is there already, or there is something that cannot be stored.
        """
        from regard.recording.save import save

        return save(self.runs, self.meta, self.skipped, path, overwrite=overwrite)

    def plot(
        self,
        layer: int | str = 0,
        head: int = 0,
        rows: slice = slice(None),
        cols: slice = slice(None),
        *,
        run: int = 0,
        batch: int = 0,
        colours: Colours = "linear",
        cmap: str = "cividis",
    ) -> Figure:
        """A figure of a window of one head's map, with tokens and a colour bar; ``.savefig("map.pdf")`` writes it.

        Args:
            layer: number of a layer or its name.
            head: true number of a head.
            rows: which queries, by row of the record.
            cols: which keys.
            run: which run.
            batch: which batch entry.
            colours: ``"linear"`` or ``"log"``.
            cmap: name of one of matplotlib's colour maps.

        Raises:
            ArgumentError: a layer, head or window that is not there.
            MissingError: matplotlib is not installed.
        """
        found = self.layer(layer, run)
        if head not in found.heads:
            raise ArgumentError(f"layer {layer} has the recorded heads {list(found.heads)}: got {describe(head)}.")
        queries, keys = _labels(found, self.runs[run], batch)
        return plot_weights(
            found.weights,
            batch,
            found.heads.index(head),
            rows,
            cols,
            row_labels=queries,
            col_labels=keys,
            colours=colours,
            cmap=cmap,
            title=f"layer {found.index}, head {head}",
        )

    def plot_scores(self, name: str, *, cmap: str = "cividis", numbers: bool | None = None) -> Figure:
        """A figure of one score of every head, layers down and heads across: `regard.figures.plot_scores`.

        Raises:
            ArgumentError: an unknown score, or one that this record does not have.
            MissingError: matplotlib is not installed.
        """
        return plot_scores(self.head_scores([name]), name, cmap=cmap, numbers=numbers)

    def save_html(self, path: str | Path, **options: Any) -> Any:
        """Write the record as one HTML page; arguments are those of `regard.viewer.save_html`."""
        return import_module("regard.viewer").save_html(self, path, **options)

    def serve(self, **options: Any) -> Any:
        """Serve the record to a browser on this machine; arguments are those of `regard.viewer.serve`."""
        return import_module("regard.viewer").serve(self, **options)

    def widget(self, **options: Any) -> Any:
        """Show the record in a live notebook at any length; arguments are those of `regard.viewer.widget`."""
        return import_module("regard.viewer").widget(self, **options)

    def _repr_html_(self) -> str:
        page: str = import_module("regard.viewer").repr_html(self)
        return page

    def __repr__(self) -> str:
        if self._runs is None and self._source is None:
            return "<Record: nothing yet>"
        layers = self.layers
        runs = f"{len(self.runs)} runs, " if len(self.runs) > 1 else ""
        first = layers[0]
        sizes = f"{len(layers)} layers, {first.q.shape[1]} heads, {first.q.shape[2]} queries, {first.k.shape[2]} keys"
        return f"<Record: {runs}{sizes}, {self.nbytes / 1e6:.3g} MB>"


def _known(layers: Sequence[Layer]) -> str:
    """Layers by number and name; of more than a screen of them the first and the last."""
    names = [f"{one.index} ({one.name})" for one in layers]
    return ", ".join(names if len(names) <= _FEW_LAYERS else [*names[:3], "…", names[-1]])


def _labels(layer: Layer, run: Run, batch: int) -> tuple[list[str] | None, list[str] | None]:
    """The words of a layer's queries and of its keys; None where they are not known."""
    crosses, decodes = layer.kind == "cross", layer.kind in ("cross", "decoder")
    asked = run.query_tokens if decodes and run.query_tokens is not None else run.tokens
    read = asked if not crosses else run.tokens
    words, keys = (
        None if found is None or not found else found[batch if len(found) > 1 else 0] for found in (asked, read)
    )
    rows = layer.rows[batch if layer.rows.shape[0] > 1 else 0].tolist()
    queries = None if words is None or max(rows, default=0) >= len(words) else [words[n] for n in rows]
    return queries, keys if keys is not None and len(keys) >= layer.k.shape[2] else None


def _scored(layer: Layer, run: Run) -> Scored:
    crosses = layer.kind == "cross"
    ids = run.query_ids if layer.kind == "decoder" and run.query_ids is not None else run.ids
    known = ids is not None and ids.shape == (layer.k.shape[0], layer.k.shape[2])
    material = Material(
        layer.call, layer.lse, ids.to(layer.k.device) if known and ids is not None else None, layer.value_norms, crosses
    )
    return Scored(layer.index, layer.name, layer.heads, material)


def checked_tokens(tokens: Sequence[str] | Sequence[Sequence[str]] | None) -> Tokens | None:
    """Words as a list for each batch entry; one list of words stands for every entry.

    Raises:
        ArgumentError: something that is not words.
    """
    if tokens is None:
        return None
    rows: list[object] = [tokens] if tokens and isinstance(tokens[0], str) else list(tokens)
    made = [list(row) for row in rows if isinstance(row, Sequence) and not isinstance(row, str)]
    if not made or len(made) < len(rows) or not all(isinstance(word, str) for row in made for word in row):
        raise ArgumentError(f"tokens= takes words, or a list of words for each batch entry: got {describe(tokens)}.")
    return made

"""Looking at attention of any length on one offline page."""

from __future__ import annotations

import html as _html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regard._errors import ArgumentError
from regard.head_scores import HeadScores
from regard.viewer.frame import frame_html as frame_html
from regard.viewer.migrate import View as View
from regard.viewer.migrate import head_view as head_view
from regard.viewer.migrate import model_view as model_view
from regard.viewer.page import MAX_BYTES, embedded
from regard.viewer.server import Server as Server
from regard.viewer.subject import Recorded as Recorded
from regard.viewer.subject import Subject, subject_of
from regard.viewer.widget import make_widget

NOTEBOOK_BYTES = 16 * 2**20
"""A larger page is not put into a notebook unasked."""

Scores = Mapping[str, Sequence[Sequence[float]]] | HeadScores


def to_html(
    record: object,
    *,
    tokens: Sequence[str] | None = None,
    query_tokens: Sequence[str] | None = None,
    scores: Scores | None = None,
    compare: object = None,
    title: str | None = None,
    entry: int = 0,
    max_bytes: int = MAX_BYTES,
    compress: bool = True,
) -> str:
    """The page of `save_html` as a string; the arguments are the same."""
    subjects = _subjects(record, compare, tokens, query_tokens, scores, title, entry)
    return embedded(subjects, max_bytes=max_bytes, compress=compress)


def save_html(
    record: object,
    path: str | Path,
    *,
    tokens: Sequence[str] | None = None,
    query_tokens: Sequence[str] | None = None,
    scores: Scores | None = None,
    compare: object = None,
    title: str | None = None,
    entry: int = 0,
    max_bytes: int = MAX_BYTES,
    compress: bool = True,
) -> Path:
    """Write a page that shows every weight of a record, in one file that needs nothing else.

    The page holds q and k as float16 and computes the weights in the browser, at any zoom; it says how far they are
    from the record's. A layer with a `ScoreMod` is stored as pooled maps instead, and the page says so.

    Args:
        record: a record, what `regard.inspect` returns, its lazy weights, or a list of these, one a layer.
        path: the file to write.
        tokens: one string a key; default: the record's own.
        query_tokens: one string a query; default: the record's own, or the last of ``tokens``.
        scores: by which the grid can be coloured: what ``record.head_scores()`` returns, or name to a row of numbers
            for each layer.
        compare: a second record to be seen beside the first.
        title: of the page; default: the model's name.
        entry: the batch entry to show.
        max_bytes: refuse a larger page.
        compress: deflate the numbers, which every browser since 2023 can undo.

    Returns:
        ``path``.

    Raises:
        ArgumentError: a page larger than ``max_bytes``, a batch entry that is not there.
        KindError: something that holds no attention.
        ShapeError: tokens or scores that do not fit.
    """
    text = to_html(
        record,
        tokens=tokens,
        query_tokens=query_tokens,
        scores=scores,
        compare=compare,
        title=title,
        entry=entry,
        max_bytes=max_bytes,
        compress=compress,
    )
    path = Path(path)
    path.write_text(text, encoding="utf-8")
    return path


def repr_html(record: object) -> str:
    """What a notebook shows of a record: its page in a frame, or a sentence where there is none or it is too large."""
    try:
        return frame_html(to_html(record, max_bytes=NOTEBOOK_BYTES))
    except ArgumentError as error:
        return f"<p>{_html.escape(str(error))}</p>"


def serve(
    record: object,
    *,
    tokens: Sequence[str] | None = None,
    query_tokens: Sequence[str] | None = None,
    scores: Scores | None = None,
    compare: object = None,
    title: str | None = None,
    entry: int = 0,
    port: int = 0,
    cache: str | Path | None = None,
) -> Server:
    """Show a record of any length on a page of 127.0.0.1, whose tiles Python computes when they are asked for.

    The first look at a head goes over all of its weights once, in blocks, and tells how far it is; the pooled maps are
    kept in a file, so that moving and zooming are quick and memory stays of the order of the record. The address holds
    a token; requests from other sites, other names of this machine, or without the token are refused.

    Args:
        record: as in `save_html`.
        tokens: as in `save_html`.
        query_tokens: as in `save_html`.
        scores: as in `save_html`.
        compare: as in `save_html`.
        title: as in `save_html`.
        entry: as in `save_html`.
        port: default: any that is free.
        cache: the folder in which pooled maps are kept for the next time; default: a temporary one.

    Returns:
        The running server: ``.url``, ``.open()``, ``.close()``, or use it in a ``with`` block.

    Raises:
        ArgumentError: the port cannot be had, a batch entry that is not there.
        KindError: something that holds no attention.
        ShapeError: tokens or scores that do not fit.
    """
    subjects = _subjects(record, compare, tokens, query_tokens, scores, title, entry)
    return Server(subjects, port=port, cache=cache)


def widget(
    record: object,
    *,
    tokens: Sequence[str] | None = None,
    query_tokens: Sequence[str] | None = None,
    scores: Scores | None = None,
    compare: object = None,
    title: str | None = None,
    entry: int = 0,
    height: int = 720,
    cache: str | Path | None = None,
) -> Any:
    """The page of `serve` as a widget of a live notebook (``pip install 'regard[jupyter]'``), at any length.

    Its questions go over the notebook's connection, so it works with a kernel on another machine; they are answered
    between two cells, not while one runs. ``.state`` is what is on the screen, synced both ways; ``.layer``, ``.head``
    and ``.view`` read it, ``.show(layer, head)`` sets it. Without a kernel it is blank: a saved notebook keeps the page
    that a record is as a cell's result.

    Args:
        record: as in `save_html`.
        tokens: as in `save_html`.
        query_tokens: as in `save_html`.
        scores: as in `save_html`.
        compare: as in `save_html`.
        title: as in `save_html`.
        entry: as in `save_html`.
        height: in pixels.
        cache: the folder in which pooled maps are kept for the next time; default: a temporary one.

    Returns:
        An ``anywidget.AnyWidget``.

    Raises:
        MissingError: anywidget is not installed.
        ArgumentError: a batch entry that is not there.
        KindError: something that holds no attention.
        ShapeError: tokens or scores that do not fit.
    """
    subjects = _subjects(record, compare, tokens, query_tokens, scores, title, entry)
    return make_widget(subjects, height=height, cache=cache)


def _subjects(
    record: object,
    compare: object,
    tokens: Sequence[str] | None,
    query_tokens: Sequence[str] | None,
    scores: Scores | None,
    title: str | None,
    entry: int,
) -> list[Subject]:
    """What a page shows: a record, and what it is compared with."""
    first = subject_of(record, tokens=tokens, query_tokens=query_tokens, title=title, entry=entry, scores=scores)
    return [first] if compare is None else [first, subject_of(compare, entry=entry)]

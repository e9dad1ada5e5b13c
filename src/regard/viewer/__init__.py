"""Looking at attention of any length on one offline page."""

from __future__ import annotations

import html as _html
from collections.abc import Mapping, Sequence
from pathlib import Path

from regard.viewer.page import MAX_BYTES, embedded
from regard.viewer.subject import Recorded as Recorded
from regard.viewer.subject import subject_of

Scores = Mapping[str, Sequence[Sequence[float]]]


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
    first = subject_of(record, tokens=tokens, query_tokens=query_tokens, title=title, entry=entry, scores=scores)
    others = [] if compare is None else [subject_of(compare, entry=entry)]
    return embedded([first, *others], max_bytes=max_bytes, compress=compress)


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
        scores: head scores by which the grid can be coloured: name to a row of numbers for each layer.
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


def frame_html(page: str, *, height: int = 720) -> str:
    """A page as an ``<iframe srcdoc>`` that notebooks show, and that stays when they are converted.

    The frame is sandboxed: the page's scripts run, and reach nothing of the notebook.
    """
    return (
        f'<iframe sandbox="allow-scripts allow-downloads" style="width:100%;height:{int(height)}px;border:0" '
        f'title="attention" srcdoc="{_html.escape(page)}"></iframe>'
    )

"""The viewer as a widget of a live notebook: the page of `serve`, its questions over the notebook's own connection.

It needs no port of this machine, so it works where the kernel is far away. A saved notebook shows nothing of it; the
page that ``_repr_html_`` makes stays.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlencode

from regard._errors import ArgumentError, MissingError, describe
from regard.viewer.page import page, static
from regard.viewer.payload import outline
from regard.viewer.server import MOST_WAITING, Answers, RefusalError
from regard.viewer.subject import Subject

PARENT = "parent:"
"""In place of a server's address: the page around the page's frame answers; ``web/src/frame.ts`` knows it too."""

Reply = Callable[[dict[str, object], bytes], object]
_Key = tuple[str, int]


class Letters:
    """Answers the messages of a page one after another, in a thread of its own; knows nothing of notebooks.

    A message ``{"kind": "ask", "view": …, "id": …, "path": "tile?record=0&…"}`` is replied to by ``{"view", "id",
    "status", "shape"}`` and the bytes; ``{"kind": "stop", "view": …, "id": …}`` says that nobody waits any more.
    """

    def __init__(self, answers: Answers, reply: Reply) -> None:
        self._answers, self._reply = answers, reply
        self._wanted: set[_Key] = set()
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, "regard-widget")

    def take(self, message: object) -> None:
        """Begin to answer a message; what is none of these is ignored, for it comes from a page."""
        if not isinstance(message, dict):
            return
        kind, view, number = (message.get(name) for name in ("kind", "view", "id"))
        if not isinstance(view, str) or type(number) is not int:
            return
        key = view, number
        if kind == "stop":
            with self._lock:
                self._wanted.discard(key)
        elif kind == "ask" and isinstance(message.get("path"), str):
            with self._lock:
                full = len(self._wanted) >= MOST_WAITING
                if not full:
                    self._wanted.add(key)
            if full:
                self._send(key, 503, None, f"{MOST_WAITING} requests are waiting already.".encode())
            else:
                self._thread.submit(self._answer, key, message["path"])

    def close(self) -> None:
        """Answer nothing more."""
        self._answers.closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _answer(self, key: _Key, path: str) -> None:
        name, _, query = path.partition("?")
        try:
            if not self._is_wanted(key):
                return
            found = self._answers.answer(name, query, lambda: self._is_wanted(key))
            self._send(key, 200, found.shape, found.body)
        except RefusalError as refusal:
            if self._is_wanted(key):
                self._send(key, refusal.status, None, str(refusal).encode())
        except Exception as error:
            self._send(key, 500, None, f"{type(error).__name__}: {error}".encode())
        finally:
            with self._lock:
                self._wanted.discard(key)

    def _is_wanted(self, key: _Key) -> bool:
        with self._lock:
            return key in self._wanted

    def _send(self, key: _Key, status: int, shape: str | None, body: bytes) -> None:
        self._reply({"view": key[0], "id": key[1], "status": status, "shape": shape}, body)


def make_widget(subjects: list[Subject], *, height: int, cache: str | Path | None) -> Any:
    """The widget of some subjects; see `regard.viewer.widget`."""
    kind = _kind()
    temporary = None if cache is not None else tempfile.TemporaryDirectory(prefix="regard-")
    folder = Path(temporary.name if temporary is not None else str(cache))
    folder.mkdir(parents=True, exist_ok=True)
    data = {"version": 1, "records": [outline(subject) for subject in subjects], "server": PARENT}
    made = kind(page=page(data, subjects[0].title), height=height)
    weak = weakref.ref(made)

    def reply(content: dict[str, object], body: bytes) -> None:
        widget = weak()
        if widget is not None:
            widget.send(content, [body])

    letters = Letters(Answers(subjects, folder), reply)
    made.on_msg(lambda _, content, buffers: letters.take(content))
    made.subjects = subjects
    weakref.finalize(made, _forget, letters, temporary)
    return made


def _forget(letters: Letters, temporary: tempfile.TemporaryDirectory[str] | None) -> None:
    letters.close()
    if temporary is not None:
        temporary.cleanup()


@cache
def _kind() -> Any:
    """The class, made when it is asked for: anywidget is optional."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise MissingError("a widget needs anywidget: pip install 'regard[jupyter]'.") from error

    class AttentionWidget(anywidget.AnyWidget):  # type: ignore[misc]  # it has no types
        """The viewer in a notebook.

        Attributes:
            state: what is on the screen, in the words of a link to it, such as ``at=0.3.5&scale=linear``; follows the
                page, and the page follows it.
            height: of the frame, in pixels.
        """

        _esm = static("widget.js")
        subjects: list[Subject]
        page = traitlets.Unicode().tag(sync=True)
        state = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int(720).tag(sync=True)

        @property
        def layer(self) -> int:
            """The number, in the model, of the layer on the screen."""
            record, layer, _ = self._at()
            return self.subjects[record].layers[layer].index

        @property
        def head(self) -> int:
            """The number, in the model, of the head on the screen."""
            record, layer, head = self._at()
            return self.subjects[record].layers[layer].heads[head]

        @property
        def view(self) -> tuple[slice, slice] | None:
            """The rows and columns on the screen; None for all."""
            given = parse_qs(self.state).get("view")
            if not given:
                return None
            x0, x1, y0, y1 = (float(x) for x in given[0].split(","))
            rows, cols = ((max(int(low), 0), max(int(-(-high // 1)), 0)) for low, high in ((y0, y1), (x0, x1)))
            return slice(*rows), slice(*cols)

        def show(self, layer: int, head: int, rows: slice | None = None, cols: slice | None = None) -> None:
            """Go to a head by its numbers in the model, and there to some rows and columns.

            Raises:
                ArgumentError: no such layer or head; rows without columns.
            """
            found = [
                (n, one.heads.index(head))
                for n, one in enumerate(self.subjects[0].layers)
                if one.index == layer and head in one.heads
            ]
            if not found:
                raise ArgumentError(f"this widget has no layer {describe(layer)} with a head {describe(head)}.")
            if (rows is None) != (cols is None):
                raise ArgumentError("a part of a map is rows and columns: got one of them.")
            state = {"at": f"0.{found[0][0]}.{found[0][1]}"}
            if rows is not None and cols is not None:
                one = self.subjects[0].layers[found[0][0]]
                (y0, y1, _), (x0, x1, _) = rows.indices(one.rows), cols.indices(one.cols)
                state["view"] = f"{x0},{x1},{y0},{y1}"
            self.state = urlencode(state, safe=",")

        def _at(self) -> tuple[int, int, int]:
            record, layer, head = (int(n) for n in parse_qs(self.state).get("at", ["0.0.0"])[0].split("."))
            return record, layer, head

    return AttentionWidget

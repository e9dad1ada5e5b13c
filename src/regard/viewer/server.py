"""The viewer's page on 127.0.0.1, its tiles computed by Python when they are asked for."""

from __future__ import annotations

import json
import secrets
import select
import socket
import tempfile
import threading
import webbrowser
from collections import OrderedDict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import torch
from torch import Tensor

from regard._errors import ArgumentError
from regard.viewer.maps import HeadMaps
from regard.viewer.page import page
from regard.viewer.payload import outline
from regard.viewer.pyramid import Pyramid, fingerprint
from regard.viewer.subject import Subject

TILE = 256
MOST_WAITING = 64
"""More requests than these at a time are refused instead of piling up."""

_MOST_NUMBERS = 1 << 24
_KEPT = 8


_ASKED = {
    "overview": ("record", "layer", "head", "hide"),
    "tile": ("record", "layer", "head", "hide", "zr", "zc", "row", "col"),
    "part": ("record", "layer", "head", "hide", "r0", "r1", "c0", "c1"),
}


class Answer(NamedTuple):
    """A media type, the bytes, and of numbers their shape."""

    kind: str
    body: bytes
    shape: str | None


class RefusalError(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Turns:
    """One computation at a time; sweeps let whoever waits go first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._condition = threading.Condition()
        self._waiting = 0

    def at_once(self, work: Callable[[], Tensor], still_wanted: Callable[[], bool]) -> Tensor:
        """Run ``work`` as soon as nothing else runs, unless nobody wants it any more by then."""
        with self._condition:
            if self._waiting >= MOST_WAITING:
                raise RefusalError(503, f"{MOST_WAITING} requests are waiting already.")
            self._waiting += 1
        try:
            with self._lock:
                if not still_wanted():
                    raise RefusalError(499, "nobody waits for this any more.")
                return work()
        finally:
            with self._condition:
                self._waiting -= 1
                self._condition.notify_all()

    def step(self, closed: Callable[[], bool]) -> None:
        """Between two strips of a sweep: let go, and come back when nobody waits."""
        self._lock.release()
        try:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting == 0 or closed(), timeout=10)
        finally:
            self._lock.acquire()
        if closed():
            raise RefusalError(503, "the server is closed.")

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()


class Answers:
    """What the server says about its subjects; knows nothing of HTTP."""

    def __init__(self, subjects: list[Subject], folder: Path) -> None:
        self.subjects = subjects
        self.turns = Turns()
        self.closed = False
        self._folder = folder
        self._heads: OrderedDict[tuple[int, int, int], HeadMaps] = OrderedDict()
        self._pyramids: OrderedDict[tuple[int, int, int, int], Pyramid] = OrderedDict()
        self._building: set[tuple[int, int, int, int]] = set()
        self._failed: dict[tuple[int, int, int, int], str] = {}
        self._guard = threading.Lock()

    def maps(self, record: int, layer: int, head: int) -> HeadMaps:
        """The maps of a head; raises `RefusalError` if there is none."""
        if not 0 <= record < len(self.subjects):
            raise RefusalError(404, f"there are {len(self.subjects)} records.")
        layers = self.subjects[record].layers
        if not 0 <= layer < len(layers) or not 0 <= head < len(layers[layer].heads):
            raise RefusalError(404, "there is no such layer and head.")
        key = (record, layer, head)
        with self._guard:
            if key not in self._heads:
                self._heads[key] = HeadMaps(layers[layer], head)
            self._heads.move_to_end(key)
            while len(self._heads) > _KEPT:
                self._heads.popitem(last=False)
            return self._heads[key]

    def pyramid(self, record: int, layer: int, head: int, hide: int) -> Pyramid:
        """The pyramid of a head, which may not be complete."""
        maps = self.maps(record, layer, head)
        key = (record, layer, head, hide)
        with self._guard:
            if key not in self._pyramids:
                path = self._folder / f"{fingerprint(maps)}-{hide}.maps"
                self._pyramids[key] = Pyramid(maps, hide, path)
            self._pyramids.move_to_end(key)
            idle = [k for k in self._pyramids if k not in self._building and k != key]
            for old in idle[: max(0, len(self._pyramids) - _KEPT)]:
                del self._pyramids[old]
            return self._pyramids[key]

    def overview(self, record: int, layer: int, head: int, hide: int) -> dict[str, object]:
        """How much of a pyramid there is, from 0 to 1; starts to build it."""
        pyramid = self.pyramid(record, layer, head, hide)
        key = (record, layer, head, hide)
        with self._guard:
            if key in self._failed:
                raise RefusalError(500, self._failed.pop(key))
            start = pyramid.done < 1 and key not in self._building
            if start:
                self._building.add(key)
        if start:
            threading.Thread(target=self._build, args=(key, pyramid), daemon=True).start()
        return {"done": pyramid.done}

    def _build(self, key: tuple[int, int, int, int], pyramid: Pyramid) -> None:
        try:
            with self.turns:
                pyramid.build(lambda: self.turns.step(lambda: self.closed))
        except RefusalError:
            pass
        except Exception as error:
            self._failed[key] = f"{type(error).__name__}: {error}"
        finally:
            self._building.discard(key)

    def tile(self, query: dict[str, int], still_wanted: Callable[[], bool]) -> Tensor:
        """The planes of a tile, float32 ``(4, n, m)``."""
        where = query["record"], query["layer"], query["head"]
        maps, (zr, zc, row, col, hide) = self.maps(*where), (query[n] for n in ("zr", "zc", "row", "col", "hide"))
        if not (0 <= zr <= 40 and 0 <= zc <= 40 and row >= 0 and col >= 0 and hide >= 0):
            raise RefusalError(400, "zr and zc are levels, row, col and hide are counts.")
        r0, c0 = (row * TILE) << zr, (col * TILE) << zc
        if r0 >= maps.rows or c0 >= maps.cols:
            raise RefusalError(404, "this tile is outside of the matrix.")
        pyramid = self.pyramid(*where, hide)
        if zr >= pyramid.zr and zc >= pyramid.zc:
            if pyramid.done < 1:
                raise RefusalError(409, "the overview is not complete.")
            return self.turns.at_once(lambda: pyramid.tile(zr, zc, row, col, TILE), still_wanted)
        rows = slice(r0, min(r0 + (TILE << zr), maps.rows))
        cols = slice(c0, min(c0 + (TILE << zc), maps.cols))
        return self.turns.at_once(lambda: maps.pool(rows, cols, zr, zc, hide), still_wanted)

    def part(self, query: dict[str, int], still_wanted: Callable[[], bool]) -> Tensor:
        """Weights of a box, NaN where hidden."""
        maps = self.maps(query["record"], query["layer"], query["head"])
        r0, r1, c0, c1, hide = (query[n] for n in ("r0", "r1", "c0", "c1", "hide"))
        if not (0 <= r0 < r1 <= maps.rows and 0 <= c0 < c1 <= maps.cols and hide >= 0):
            raise RefusalError(400, f"a part lies within {maps.rows} rows and {maps.cols} columns.")
        if (r1 - r0) * (c1 - c0) > _MOST_NUMBERS:
            raise RefusalError(413, f"a part has at most {_MOST_NUMBERS} weights.")
        return self.turns.at_once(lambda: maps.weights(slice(r0, r1), slice(c0, c1), hide), still_wanted)

    def answer(self, name: str, query: str, still_wanted: Callable[[], bool]) -> Answer:
        """What a page asks for by a name and its numbers; raises `RefusalError`."""
        wanted = _ASKED.get(name)
        if wanted is None:
            raise RefusalError(404, "there is nothing of this name.")
        given = parse_qs(query)
        try:
            numbers = {key: int(given[key][0]) for key in wanted}
        except (KeyError, ValueError):
            raise RefusalError(400, f"{name} takes the numbers {', '.join(wanted)}.") from None
        if name == "overview":
            found = self.overview(*(numbers[key] for key in wanted))
            return Answer("application/json", json.dumps(found).encode(), None)
        tensor = self.tile(numbers, still_wanted) if name == "tile" else self.part(numbers, still_wanted)
        shape = ",".join(str(n) for n in tensor.shape)
        body = tensor.to(torch.float32).contiguous().numpy().astype("<f4", copy=False).tobytes()
        return Answer("application/octet-stream", body, shape)


class Server:
    """A running viewer. Close it with `close`, or use it in a ``with`` block.

    Attributes:
        url: where it is, with its token.
    """

    def __init__(self, subjects: list[Subject], *, port: int = 0, cache: str | Path | None = None) -> None:
        token = secrets.token_urlsafe(24)
        data = {"version": 1, "records": [outline(s) for s in subjects], "server": f"/{token}"}
        html = page(data, subjects[0].title, connect="'self'").encode()
        handler = type("Handler", (_Handler,), {"token": token, "html": html})
        try:
            self._http = _Http(("127.0.0.1", port), handler)
        except OSError as error:
            raise ArgumentError(
                f"port {port} of 127.0.0.1 cannot be had: {error}. Leave port out to get any."
            ) from None
        self._temporary = None if cache is not None else tempfile.TemporaryDirectory(prefix="regard-")
        folder = Path(self._temporary.name if self._temporary is not None else str(cache))
        folder.mkdir(parents=True, exist_ok=True)
        handler.answers = self.answers = Answers(subjects, folder)  # type: ignore[attr-defined]
        self.port: int = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}/{token}/"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def open(self) -> Self:
        """Show the page in the browser of this machine."""
        webbrowser.open(self.url)
        return self

    def wait(self) -> None:
        """Until interrupted."""
        try:
            self._thread.join()
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Stop, and forget what is not kept beside a record."""
        self.answers.closed = True
        self._http.shutdown()
        self._http.server_close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<the viewer at {self.url}>"


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who left says nothing worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    answers: Answers
    token: str
    html: bytes
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: ThreadingHTTPServer

    def do_GET(self) -> None:
        try:
            self._check_origin()
            parts = urlsplit(self.path)
            names = parts.path.split("/")
            if len(names) != 3 or not secrets.compare_digest(names[1].encode(), self.token.encode()):
                raise RefusalError(403, "the address lacks this server's token.")
            self._answer(names[2], parts.query)
        except RefusalError as refusal:
            self._send(refusal.status, "text/plain; charset=utf-8", str(refusal).encode())
        except Exception as error:
            self._send(500, "text/plain; charset=utf-8", f"{type(error).__name__}: {error}".encode())

    def _check_origin(self) -> None:
        """Only pages of this very server may ask: no other site, no other name for this machine."""
        own = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
        if self.headers.get("Host") not in own:
            raise RefusalError(403, "this server answers to 127.0.0.1 and localhost only.")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in own}:
            raise RefusalError(403, "this server answers to its own page only.")
        if self.headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none"):
            raise RefusalError(403, "this server answers to its own page only.")

    def _answer(self, name: str, query: str) -> None:
        if name == "":
            self._send(200, "text/html; charset=utf-8", self.html)
            return
        found = self.answers.answer(name, query, self._connected)
        self._send(200, found.kind, found.body, found.shape)

    def _connected(self) -> bool:
        """Whether the visitor still waits: one who went on has closed the connection."""
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""
        except OSError:
            return False

    def _send(self, status: int, kind: str, body: bytes, shape: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if shape is not None:
            self.send_header("X-Shape", shape)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the token must not end up in a log."""

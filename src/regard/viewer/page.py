"""One self-contained HTML file: the viewer, its data, and no address of anything outside."""

from __future__ import annotations

import html as _html
import json
from importlib.resources import files

from regard._errors import ArgumentError
from regard.viewer.chunks import Chunks
from regard.viewer.payload import Json, describe_subject
from regard.viewer.subject import Subject

MAX_BYTES = 64 * 2**20
"""Above this size, a page has to be asked for explicitly."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src {connect}; base-uri 'none'; form-action 'none'"
)


def static(name: str) -> str:
    """A built file of the viewer."""
    return files("regard.viewer").joinpath("static", name).read_text(encoding="utf-8")


def embedded(subjects: list[Subject], *, max_bytes: int = MAX_BYTES, compress: bool = True) -> str:
    """A page that holds q and k of every head and computes every weight itself.

    Raises:
        ArgumentError: more than ``max_bytes``.
    """
    _check_size(subjects, max_bytes)
    chunks = Chunks(compress=compress)
    data: Json = {"version": 1, "records": [describe_subject(subject, chunks) for subject in subjects]}
    if chunks.size > max_bytes:
        raise ArgumentError(_too_large(chunks.size, max_bytes))
    stored = (f'<script type="text/plain" data-chunk="{name}">{text}</script>' for name, text in chunks.texts.items())
    return page(data, subjects[0].title, "\n".join(stored))


def page(data: Json, title: str, chunks: str = "", *, connect: str = "'none'") -> str:
    """The HTML around the data. ``title`` and everything in ``data`` may hold any characters."""
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(connect=connect)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{_html.escape(title.replace(chr(0), chr(0xFFFD)))} · regard</title>",
            f"<style>{static('viewer.css')}</style></head>",
            '<body><main class="regard"></main>',
            f'<script type="application/json" class="regard-data">{script_json(data)}</script>',
            f"<script>{static('viewer.js')}</script>",
            chunks,
            "</body></html>\n",
        )
    )


def script_json(data: object) -> str:
    """JSON that is inert inside a script element: ASCII only, no ``<``, ``>`` or ``&``."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _check_size(subjects: list[Subject], max_bytes: int) -> None:
    """Refuse before anything is computed what cannot fit even when it is compressed to three quarters."""
    calls = [layer.call for subject in subjects for layer in subject.layers]
    numbers = sum(call.q[0].numel() + call.k[0].numel() for call in calls)
    if 2 * numbers > max_bytes:
        raise ArgumentError(_too_large(2 * numbers * 4 // 3, max_bytes))


def _too_large(size: int, limit: int) -> str:
    return (
        f"this page takes {size / 1e6:.0f} MB, and the limit is {limit / 1e6:.0f} MB. Show fewer layers, heads or "
        f"queries, look at it with .serve() instead, or lift the limit with max_bytes={2 * size}."
    )

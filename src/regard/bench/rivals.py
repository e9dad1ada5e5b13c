"""Other viewers in the same browser, as far as their packages are installed: rows of `peers` that are run again.

``pip install --no-deps bertviz inspectus circuitsvis 'importlib_metadata<8' zipp`` is enough for their pages. BertViz
takes three scripts from a network that there is not: they are read, as ``require.min.js``, ``d3.min.js`` and
``jquery.min.js``, from the folder that ``REGARD_VIEWER_SCRIPTS`` names.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from regard.bench.peers import Peer

SCRIPTS = "REGARD_VIEWER_SCRIPTS"
_IDLE = "() => new Promise((done) => requestIdleCallback(() => done(performance.now())))"


@dataclass(frozen=True)
class Rival:
    """Another viewer on the longest map that it was found to draw.

    Attributes:
        package: on the index.
        title: of what is shown.
        tokens: rows and columns of each head's map.
        heads: of one layer.
        page: what it makes of weights ``(1, H, L, L)`` and tokens, as HTML.
        drawn: selector of what it draws.
    """

    package: str
    title: str
    tokens: int
    heads: int
    page: Callable[[Tensor, list[str]], str]
    drawn: str

    def run(self, browser: Any, folder: Path) -> Peer:
        """Open its page in a context of its own, from the start of the load until it is drawn and the browser idle."""
        path = folder / f"{self.package}.html"
        weights = torch.randn(1, self.heads, self.tokens, self.tokens, generator=torch.Generator().manual_seed(0))
        hidden = torch.ones(self.tokens, self.tokens, dtype=torch.bool).triu(1)
        words = [f"t{n}" for n in range(self.tokens)]
        html = self.page(weights.masked_fill(hidden, -torch.inf).softmax(-1), words)
        path.write_text(f"<!doctype html><meta charset='utf-8'><body>{html}", "utf-8")
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        try:
            page = context.new_page()
            page.route("**/*", _from_folder)
            page.goto(path.as_uri(), wait_until="commit")
            page.wait_for_selector(self.drawn, state="attached", timeout=180_000)
            seconds = page.evaluate(_IDLE) / 1e3
        finally:
            context.close()
        title = f"{self.title} {version(self.package)}"
        return Peer(title, self.tokens, 1, self.heads, round(path.stat().st_size / 1e6, 1), round(seconds, 1))


def rerun(browser: Any, folder: Path) -> tuple[Peer, ...]:
    """What the viewers that are installed here cost in this browser."""
    return tuple(one.run(browser, folder) for one in RIVALS if importlib.util.find_spec(one.package) is not None)


def _from_folder(route: Any) -> None:
    """Answer a request for a script with the file of its name, without the network."""
    if route.request.url.startswith("file:"):
        route.continue_()
        return
    name = route.request.url.rsplit("/", 1)[-1].removesuffix(".js").removesuffix(".min")
    path = Path(os.environ.get(SCRIPTS, "")) / f"{name}.min.js"
    if path.is_file():
        route.fulfill(body=path.read_text("utf-8"), content_type="text/javascript")
    else:
        route.abort()


def _bertviz(weights: Tensor, words: list[str]) -> str:
    return str(import_module("bertviz").head_view([weights], words, html_action="return").data)


def _inspectus(weights: Tensor, words: list[str]) -> str:
    """Its page goes to a notebook only, so that what it shows there is caught."""
    shown: list[str] = []
    with patch("IPython.display.display", lambda one: shown.append(str(one.data))):
        import_module("inspectus").attention(weights[0, 0].numpy(), words)
    return "\n".join(shown)


def _circuitsvis(weights: Tensor, words: list[str]) -> str:
    return str(import_module("circuitsvis.attention").attention_heads(attention=weights[0], tokens=words).local_src)


RIVALS = (
    Rival("bertviz", "BertViz head view", 512, 12, _bertviz, "svg line"),
    Rival("inspectus", "Inspectus", 1024, 1, _inspectus, "svg rect"),
    Rival("circuitsvis", "CircuitsVis heads", 256, 12, _circuitsvis, "canvas"),
)

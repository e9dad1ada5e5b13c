"""What looking costs: pages in a headless browser, from their bytes to the time until they answer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from regard._inspect import Inspection, inspect
from regard.bench.memory import peak_extra
from regard.bench.peers import PEERS, PEERS_MACHINE, Peer
from regard.bench.rivals import rerun
from regard.masks import Causal
from regard.viewer import save_html, serve

TITLE = "pages in a headless Chromium: 12 × 12 heads of 1,024 tokens, 12 of 4,096, and 1 of 100,000 that is served"
TARGET_OPEN, TARGET_OVERVIEW, TARGET_STEP = 2.0, 15.0, 0.15
_FEATURES = 64
_KEYS = ["+"] * 4 + ["ArrowUp", "ArrowLeft"] + ["+"] * 4 + ["ArrowUp", "ArrowLeft", "ArrowDown"] + ["+"] * 4
_KEYS += ["ArrowRight", "ArrowDown", "ArrowUp"] + ["-"] * 6 + ["ArrowLeft", "ArrowRight"] + ["-"] * 4

_WATCH = """
  window.bench = {ready: null, flying: 0, last: 0};
  const fetched = window.fetch;
  window.fetch = async (...given) => {
    bench.flying++;
    try {
      const response = await fetched(...given);
      const body = await response.arrayBuffer();
      return new Response(body, {status: response.status, headers: response.headers});
    } finally { bench.flying--; bench.last = performance.now(); }
  };
  const look = new MutationObserver(() => {
    if (document.querySelector('main[data-ready]')) { bench.ready = performance.now(); look.disconnect(); }
  });
  look.observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ['data-ready']});
"""
"""Notes when the first map is there, and what is under way."""

_STEP = """
  async (key) => {
    const frame = () => new Promise((done) => requestAnimationFrame(() => done(performance.now())));
    const began = performance.now();
    window.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    // The first frame asks for tiles; the one after the last of them came draws them.
    let settled = await frame(), seen = bench.last;
    for (let calm = 0; calm < 3; calm++) {
      const now = await frame();
      if (bench.flying || bench.last !== seen) { calm = -1; seen = bench.last; settled = now; }
    }
    return settled - began;
  }
"""


@dataclass(frozen=True)
class Opened:
    """One page as a file.

    Attributes:
        layers: of it.
        heads: of each layer.
        tokens: rows and columns of each head's map.
        compressed: whether the browser undoes a compression.
        bytes: of the file.
        save: seconds to write it.
        open: seconds from the start of its load until the first map is drawn and the page answers, each time.
    """

    layers: int
    heads: int
    tokens: int
    compressed: bool
    bytes: int
    save: float
    open: tuple[float, ...]

    def __str__(self) -> str:
        how = "compressed" if self.compressed else "plain"
        return (
            f"{self.layers} × {self.heads} heads, {self.tokens:,} tokens, {how}: {self.bytes / 1e6:.1f} MB, "
            f"written in {self.save:.1f} s, answers after {statistics.median(self.open):.2f} s "
            f"(target {TARGET_OPEN:.0f})"
        )


@dataclass(frozen=True)
class Looked:
    """One head that is served.

    Attributes:
        tokens: rows and columns of its map.
        record: bytes of its q, k and lse.
        overview: seconds from the start of the page's load until the whole map is there.
        steps: seconds of each pan or zoom step until the map is drawn from tiles of its own level.
        peak: bytes by which Python's memory grew at its peak, the mapped file of pooled maps included.
        again: seconds to the map when the pooled maps lie beside the record already.
    """

    tokens: int
    record: int
    overview: float
    steps: tuple[float, ...]
    peak: int
    again: float

    def __str__(self) -> str:
        return (
            f"1 head, {self.tokens:,} tokens, served: overview {self.overview:.1f} s (target {TARGET_OVERVIEW:.0f}), "
            f"{self.again:.2f} s the next time; a step {1e3 * statistics.median(self.steps):.0f} ms in the median of "
            f"{len(self.steps)}, {1e3 * max(self.steps):.0f} ms at most (target {1e3 * TARGET_STEP:.0f}); "
            f"Python's memory grew by {self.peak / 1e6:.0f} MB for a record of {self.record / 1e6:.0f} MB"
        )


@dataclass(frozen=True)
class Viewed:
    """All that was measured."""

    browser: str
    pages: tuple[Opened, ...]
    served: Looked
    others: tuple[Peer, ...] = ()

    def __str__(self) -> str:
        lines = [f"headless Chromium {self.browser}", *map(str, self.pages), str(self.served)]
        lines += [f"another viewer, run here: {peer}" for peer in self.others]
        lines += [f"others, not run again ({PEERS_MACHINE}):", *(f"  {peer}" for peer in PEERS)]
        return "\n".join(lines)

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self)


def missing() -> str | None:
    """Why this cannot be measured here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "it needs the package playwright"
    return None if shutil.which("chromium") else "it needs chromium on the path"


def measure(runs: int, served: int = 100_000) -> Viewed:
    """Open each page ``runs`` times in a browser context of its own, look at the served head once."""
    with _browser() as browser, tempfile.TemporaryDirectory(prefix="regard-bench-") as folder:
        pages = [
            _opened(browser, Path(folder), layers, tokens, runs, compressed=compressed)
            for layers, tokens, compressed in ((12, 1024, True), (12, 1024, False), (1, 4096, True))
        ]
        looked = _looked(browser, Path(folder), served)
        return Viewed(str(browser.version), tuple(pages), looked, rerun(browser, Path(folder)))


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def _visit(browser: Any, address: str) -> Iterator[tuple[Any, float]]:
    """A page whose first map is drawn, and the seconds that it took."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    try:
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.goto(address, wait_until="commit")
        page.wait_for_selector("main[data-ready]", timeout=120_000)
        # A frame later the map is on the screen and the next event is answered.
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        yield page, page.evaluate("() => bench.ready") / 1e3
    finally:
        context.close()


def _opened(browser: Any, folder: Path, layers: int, tokens: int, runs: int, *, compressed: bool) -> Opened:
    record = [_random(12, tokens, seed) for seed in range(layers)]
    began = time.perf_counter()
    path = save_html(record, folder / "page.html", max_bytes=1 << 30, compress=compressed)
    saved = time.perf_counter() - began
    times = []
    for _ in range(runs):
        with _visit(browser, path.as_uri()) as (_, seconds):
            times.append(seconds)
    return Opened(layers, 12, tokens, compressed, path.stat().st_size, saved, tuple(times))


def _looked(browser: Any, folder: Path, tokens: int) -> Looked:
    record = _random(1, tokens, 0)
    seconds: list[float] = []
    overview = 0.0

    def look() -> None:
        nonlocal overview
        with serve(record, cache=folder) as server, _visit(browser, server.url) as (page, overview):
            seconds.extend(page.evaluate(_STEP, key) / 1e3 for key in _KEYS)

    peak = peak_extra(look)
    with serve(record, cache=folder) as server, _visit(browser, server.url) as (_, again):
        pass
    return Looked(tokens, 4 * tokens * (2 * _FEATURES + 1), overview, tuple(seconds), peak, again)


def _random(heads: int, tokens: int, seed: int) -> Inspection:
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, heads, tokens, _FEATURES, generator=generator).unbind()
    return inspect(q, k, k[..., :1], mask=Causal())

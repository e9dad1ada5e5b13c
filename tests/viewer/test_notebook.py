"""A record as the result of a notebook's cell, through nbconvert, without the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CELL = """
import torch, regard as rg
torch.manual_seed(0)
layer = rg.nn.MultiHeadAttention(16, 16, 64, 0.0, num_heads=2)
with rg.record(layer) as rec:
    layer(torch.randn(1, 40, 16))
rec
"""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that was run and converted to HTML."""
    nbformat = pytest.importorskip("nbformat")
    nbconvert = pytest.importorskip("nbconvert")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbconvert.preprocessors.ExecutePreprocessor(timeout=60, kernel_name="python3").preprocess(book, {})
    with pytest.MonkeyPatch.context() as patch:
        # Its templates lie beside the package, which need not be in this environment's own folder.
        patch.setenv("JUPYTER_PATH", str(Path(nbconvert.__file__).parents[4] / "share" / "jupyter"))
        text, _ = nbconvert.HTMLExporter().from_notebook_node(book)
    path = tmp_path_factory.mktemp("notebook") / "book.html"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_page_stays_when_a_notebook_is_converted(browser: Any, converted: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked: list[str] = []

    def note(route: Any) -> None:
        url = route.request.url
        if url.startswith(("file:", "blob:", "data:")):
            route.continue_()
        else:
            # nbconvert's own template asks for MathJax and the like; the frame may ask for nothing.
            asked.append(route.request.frame.url)
            route.abort()

    page.route("**/*", note)
    try:
        page.goto(converted.as_uri())
        frame = next(one for one in page.frames if one.url == "about:srcdoc")
        frame.wait_for_selector("main[data-ready]", timeout=30_000)
        sums = frame.evaluate(
            "async () => Array.from(await document.querySelector('main').viewer.source.part("
            "{record: 0, layer: 0, head: 1}, 39, 40, 0, 40, 0)).reduce((a, b) => a + b)"
        )
        assert sums == pytest.approx(1, abs=1e-3)
        assert "about:srcdoc" not in asked
    finally:
        context.close()

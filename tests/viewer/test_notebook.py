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


WIDGET = """
shown = rec.widget(height=300)
shown.show(0, 1)
shown
"""


@pytest.fixture(scope="module")
def book() -> Any:
    """A notebook that was run in a kernel: a record as a cell's result, and its widget."""
    nbformat = pytest.importorskip("nbformat")
    nbconvert = pytest.importorskip("nbconvert")
    pytest.importorskip("ipykernel")
    pytest.importorskip("anywidget")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (CELL, WIDGET)])
    nbconvert.preprocessors.ExecutePreprocessor(timeout=60, kernel_name="python3").preprocess(made, {})
    return made


@pytest.fixture(scope="module")
def converted(book: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as HTML."""
    nbconvert = pytest.importorskip("nbconvert")
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


def test_a_widget_runs_in_a_real_kernel(book: Any) -> None:
    """Its state comes back with the notebook: the page, its height and where it was sent."""
    [output] = book.cells[1].outputs
    model = output.data["application/vnd.jupyter.widget-view+json"]["model_id"]
    state = book.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"][model]["state"]
    assert state["height"] == 300
    assert state["page"].startswith("<!doctype html>")
    assert state["state"] == "at=0.0.1"

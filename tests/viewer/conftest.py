"""What a page does in the browser; whatever it asks the network for is noted and refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.viewer import screen

import regard as rg
from regard.viewer import save_html

Open = Callable[..., Any]


class Visit:
    """A page, the addresses that it asked for, and its errors."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.entry = 0
        self.seen: list[Any] = []

    def viewer(self, expression: str, argument: object = None) -> Any:
        """Evaluate a JavaScript function of the viewer and an argument."""
        return self.page.evaluate(
            f"([given]) => ({expression})(document.querySelector('main.regard').viewer, given)", [argument]
        )

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression holds; the page's policy forbids the browser driver's own way."""
        for _ in range(400):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(25)
        raise AssertionError(f"this did not come true: {expression}")


@contextmanager
def visiting(
    browser: Any,
    address: str,
    *,
    allow: str = "file:",
    exposed: Mapping[str, Callable[..., object]] | None = None,
    **options: Any,
) -> Iterator[Visit]:
    """Open an address and wait for its viewer; ``exposed`` are functions that its scripts may call."""
    settings = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **options}
    context = browser.new_context(**settings)
    page = context.new_page()
    visit = Visit(page)

    def note(route: Any) -> None:
        url = route.request.url
        if url.startswith((allow, "blob:", "data:")):
            route.continue_()
        else:
            visit.asked.append(url)
            route.abort()

    page.route("**/*", note)
    for name, function in (exposed or {}).items():
        page.expose_function(name, function)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda m: visit.errors.append(m.text) if m.type == "error" else None)
    try:
        page.goto(address)
        page.wait_for_selector("main[data-ready]", timeout=30_000)
        yield visit
        assert visit.asked == []
        assert visit.errors == []
    finally:
        context.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Callable[..., Any]:
    """Open HTML as a file: ``with visit(html) as page``."""

    def opened(html: str, fragment: str = "", **options: Any) -> Any:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        return visiting(browser, path.as_uri() + fragment, **options)

    return opened


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Any:
    other = [rg.inspect(*screen.noise(n), mask=rg.Causal()) for n in range(2)]
    return save_html(
        screen.patterned(),
        tmp_path_factory.mktemp("screen") / "page.html",
        tokens=screen.TOKENS,
        scores=screen.SCORES,
        compare=other,
        title="one",
    )


@pytest.fixture
def page(browser: Any, path: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page of `screen` at the fragment and with the options of the test's parameter."""
    fragment, options = getattr(request, "param", ("", {}))
    with visiting(browser, path.as_uri() + fragment, **options) as visit:
        yield visit

"""The documentation builds strictly in both languages, needs no network, and its code runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lessons import render

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if re.search(r"^```python$", path.read_text(encoding="utf-8"), re.M)
]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # A fresh process: mkdocs and its plugins warn of their own affairs, and here warnings are errors.
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and known.get("src"):
            self.fetched.append(str(known["src"]))
        if tag == "link" and known.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.fetched.append(str(known["href"]))


def test_every_page_fetches_only_files_that_are_there(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        for target in links.fetched:
            assert not re.match(r"(https?:)?//", target), f"{page.name} fetches {target}"
            if page.name != "404.html" and not target.startswith("data:"):
                assert (page.parent / target.partition("?")[0]).exists(), f"{page.relative_to(site)} lacks {target}"


def test_every_lesson_has_its_page_in_both_languages(site: Path) -> None:
    for path in render.lessons():
        english = (site / "lessons" / f"{path.stem}.html").read_text(encoding="utf-8")
        chinese = (site / "zh-TW" / "lessons" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert 'lang="en"' in english
        assert 'lang="zh-Hant' in chinese or 'lang="zh-TW' in chinese
        assert f"lessons/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text()
        assert f"lessons/{path.stem}.md" in (ROOT / "mkdocs.zh-TW.yml").read_text()


def test_no_mark_is_left_unfilled(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "generate:" not in page.read_text(encoding="utf-8"), page


@pytest.mark.parametrize("language", [("concepts.html", "yes"), ("zh-TW/concepts.html", "可")])
def test_the_backends_table_is_what_they_declare(site: Path, language: tuple[str, str]) -> None:
    from regard._dispatch import backend, backend_names

    page, yes = language
    text = (site / page).read_text(encoding="utf-8")
    for name in backend_names():
        row = re.search(rf"<tr>\s*<td><code>{name}</code></td>.*?</tr>", text, re.S)
        assert row, name
        assert row[0].count(f"<td>{yes}</td>") == sum(
            getattr(backend(name).capabilities, feature)
            for feature in ("masks", "score_mods", "sinks", "dropout", "lse", "lse_gradient", "higher_derivatives")
        )


@pytest.mark.parametrize("page", ["why-attention.html", "zh-TW/why-attention.html"])
def test_why_attention_shows_what_was_measured(site: Path, page: str) -> None:
    text = (site / page).read_text(encoding="utf-8")
    record = json.loads((ROOT / "docs" / "data" / "recall.json").read_text(encoding="utf-8"))
    for n, distance in enumerate(record["experiment"]["distances"]):
        cells = [f"{distance}", *(f"{shares[n]:.1%}" for shares in record["accuracy"].values())]
        assert re.search(r"\s*".join(rf"<td[^>]*>{re.escape(cell)}</td>" for cell in cells), text), cells
    assert "figures/recall.svg" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "docs")))
def test_the_code_of_a_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M):
        exec(compile(block, str(path), "exec"), names)


def test_the_performance_page_takes_any_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    import performance  # type: ignore[import-not-found]

    monkeypatch.setattr(performance, "DATA", tmp_path)
    performance.figures.cache_clear()
    assert "No record" in performance.tables()
    case: dict[str, Any] = {"name": "x", "title": "a case", "against": "theirs", "shape": [1, 8, 64, 64], "ratio": 0.5}
    growth = {"pairs": [10, 20], "seconds": [0.003, 0.006], "fixed": 0.001, "per_pair": 2e-4}
    machine = {"processor": "Some CPU", "cores": 2}
    record = {"machine": machine, "cases": [case | {"seconds": 0.012}], "growth": growth}
    (tmp_path / "bench-a-few-cases.json").write_text(json.dumps(record))
    text = performance.tables()
    assert "## A few cases\n\nOn Some CPU, 2 cores." in text
    assert "| a case; 1 × 8 × 64 × 64 float32 | **0.500** | 12.0 ms | – | theirs |" in text
    assert "from 10 to 20 visible pairs" in text
    assert "to within 20%" in text
    assert list(performance.figures()) == ["bench-a-few-cases.svg"]
    performance.figures.cache_clear()


def test_the_example_is_small_and_shows_the_known_facts(site: Path) -> None:
    page = site / "example" / "smollm2.html"
    assert page.stat().st_size < 1.5e6
    text = page.read_text("utf-8")
    for name in ("sink_mass_1", "previous_token", "prefix_matching"):
        assert f'"{name}":[[' in text
    for guide in (site / "looking-inside.html", site / "zh-TW" / "looking-inside.html"):
        assert "example/smollm2.html" in guide.read_text("utf-8")


@pytest.mark.parametrize(("folder", "word"), [(".", "sliding"), ("zh-TW", "softmax")])
def test_the_search_works_from_a_folder(site: Path, browser: Any, folder: str, word: str) -> None:
    context = browser.new_context(viewport={"width": 1300, "height": 800})
    tab = context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((site / folder / "index.html").as_uri())
    tab.click("input.md-search__input")
    tab.keyboard.type(word, delay=20)
    tab.wait_for_selector(".md-search-result__item", timeout=30_000)
    assert word in tab.locator(".md-search-result__list").inner_text().lower()
    assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in asked), asked
    context.close()

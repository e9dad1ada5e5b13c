"""What mkdocs calls: adds the lessons, and fills ``<!-- generate: NAME -->`` with what the library itself says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import example  # noqa: E402, after the path is set
import performance  # noqa: E402, after the path is set
import tables  # noqa: E402, after the path is set
import why  # noqa: E402, after the path is set

from lessons import render  # noqa: E402, after the path is set

_MARK = re.compile(r"^<!-- generate: (?P<name>[\w-]+) -->$", re.M)
GENERATED = {
    "masks": tables.masks,
    "masks-zh-TW": tables.masks_zh_tw,
    "backends": tables.backends,
    "backends-zh-TW": tables.backends_zh_tw,
    "performance": performance.tables,
    "recall-table": why.table,
    "recall-table-zh-TW": why.table_zh_tw,
    "recall-statements": why.statements,
    "recall-statements-zh-TW": why.statements_zh_tw,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Every lesson's page in the language of the site, its figures, and the page of the example."""
    language = "zh-TW" if config.theme["language"] == "zh-TW" else "en"
    for path in render.lessons():
        page = render.rendered(path)[language]
        files.append(File.generated(config, f"lessons/{path.stem}.md", content=page.markdown))
        for name, svg in page.figures.items():
            files.append(File.generated(config, f"lessons/figures/{name}", content=svg))
    if language != "en":
        for path in sorted((ROOT / "docs" / "assets").iterdir()):
            files.append(File.generated(config, f"assets/{path.name}", content=path.read_bytes()))
    else:
        files.append(File.generated(config, "example/smollm2.html", content=example.page()))
    for name, svg in (tables.mask_figures() | performance.figures() | why.figures()).items():
        files.append(File.generated(config, f"figures/{name}", content=svg))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its marks filled."""
    return _MARK.sub(lambda mark: GENERATED[mark["name"]](), markdown)

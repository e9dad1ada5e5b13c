"""Runs a lesson once and writes it down as Markdown in every language.

A lesson is a script in the percent format that editors show as cells: ``# %% [markdown] KEY`` begins prose, ``# %%``
begins code. The code is there once. The prose of another language is ``LANGUAGE/NAME.md``, its parts headed
``<!-- KEY -->`` with the same keys in the same order. The solution of an exercise is the cell ``# %% KEY`` of
``solutions/NAME.py``, shown folded under the prose of that key.

Prose is an f-string that sees what the code before it has left: ``{weights.max():.4f}`` is the number of this very run.

    python lessons/render.py FOLDER    writes every page and figure into FOLDER
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent

import matplotlib
import matplotlib.pyplot as plt
import torch

HERE = Path(__file__).parent
LANGUAGES = ("en", "zh-TW")
SOLUTION = {"en": "Solution", "zh-TW": "解答"}
_CELL = re.compile(r"^# %%(?P<prose> \[markdown\])?(?: (?P<key>[\w-]+))?$")
_PART = re.compile(r"^<!-- (?P<key>[\w-]+) -->$", re.M)


class LessonError(ValueError):
    """A lesson that cannot be rendered: the file, the cell, and what is wrong with it."""


@dataclass(frozen=True)
class Cell:
    """One cell of a script: prose or code, its key (empty for most code) and its first line in the file."""

    prose: bool
    key: str
    text: str
    line: int


@dataclass
class Page:
    """One language's Markdown, and what it shows, as ``{file name: content}``: SVG, or HTML that the lesson wrote."""

    parts: list[str] = field(default_factory=list)
    figures: dict[str, bytes] = field(default_factory=dict)

    @property
    def markdown(self) -> str:
        """The page."""
        return "\n\n".join(part for part in self.parts if part) + "\n"


def lessons() -> list[Path]:
    """The scripts, in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def cells(path: Path) -> list[Cell]:
    """The cells of a script; what stands before the first, the docstring, is for who opens the file."""
    found: list[Cell] = []
    head: tuple[bool, str, int] | None = None
    lines: list[str] = []

    def close() -> None:
        if head is not None:
            found.append(Cell(head[0], head[1], "\n".join(lines).strip("\n"), head[2]))

    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if match := _CELL.match(line):
            close()
            head, lines = (match["prose"] is not None, match["key"] or "", number), []
        elif head is not None and head[0] and line:
            if not line.startswith("#"):
                raise LessonError(
                    f"{path.name}:{number}: prose is a comment, but this line is code; begin it with '# %%'"
                )
            lines.append(line[1:].removeprefix(" "))
        else:
            lines.append(line)
    close()
    return found


def prose(path: Path, language: str) -> dict[str, str]:
    """The prose of a lesson by key, in one language."""
    english = {cell.key: cell.text for cell in cells(path) if cell.prose}
    if language == "en":
        return english
    file = HERE / language / f"{path.stem}.md"
    pieces = _PART.split(file.read_text(encoding="utf-8"))
    translated = {key: text.strip("\n") for key, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    if list(translated) != list(english):
        raise LessonError(f"{file.name} in {language} has the parts {list(translated)}; the script has {list(english)}")
    return translated


def solutions(path: Path) -> dict[str, Cell]:
    """The solutions of a lesson by the key of their exercise."""
    return {cell.key: cell for cell in cells(HERE / "solutions" / path.name)}


@cache
def rendered(path: Path) -> dict[str, Page]:
    """As `render`, run once a process."""
    return render(path)


def render(path: Path) -> dict[str, Page]:
    """Run a lesson and its solutions; the page of each language."""
    texts = {language: prose(path, language) for language in LANGUAGES}
    answers = solutions(path)
    pages = {language: Page() for language in LANGUAGES}
    names: dict[str, object] = {"__name__": path.stem}
    own_names: dict[str, object] = {"__name__": f"{path.stem}_solutions"}
    count = 0
    with _as_a_script():
        for cell in cells(path):
            if not cell.prose:
                count += 1
                shown, figures = _run(cell, path, names, f"{path.stem}-{count}")
                for page in pages.values():
                    page.parts.append(shown)
                    page.figures |= figures
                continue
            for language, page in pages.items():
                page.parts.append(_filled(texts[language][cell.key], names, f"{path.name}, {cell.key} ({language})"))
            if cell.key in answers:
                shown, figures = _run(answers.pop(cell.key), path, own_names, f"{path.stem}-{cell.key}")
                for language, page in pages.items():
                    page.parts.append(f'??? success "{SOLUTION[language]}"\n\n{indent(shown, "    ")}')
                    page.figures |= figures
    if answers:
        raise LessonError(f"{path.name} has no exercise for the solutions {list(answers)}")
    return pages


def _filled(text: str, names: dict[str, object], where: str) -> str:
    if '"""' in text:
        raise LessonError(f"{where}: prose may not hold three double quotes")
    try:
        return str(eval(f'fr"""{text}"""', names))
    except Exception as error:
        raise LessonError(f"{where}: {type(error).__name__}: {error}") from error


def _run(cell: Cell, path: Path, names: dict[str, object], figure_name: str) -> tuple[str, dict[str, bytes]]:
    """Run a code cell; its Markdown, with what it printed and drew, and the figures."""
    printed = io.StringIO()
    # The empty lines make an error name the line of the file.
    code = compile("\n" * cell.line + cell.text, str(path), "exec")
    with redirect_stdout(printed):
        exec(code, names)
    parts = [f"```python\n{cell.text}\n```"]
    if printed.getvalue().strip():
        parts.append(f"```{{ .text .output }}\n{printed.getvalue().rstrip()}\n```")
    figures = {}
    for n, number in enumerate(plt.get_fignums(), 1):
        figure = plt.figure(number)
        if not figure.get_label():
            raise LessonError(
                f"{path.name}:{cell.line}: give the figure a label, num='…'; it is read where it is not seen"
            )
        name = f"{figure_name}-{n}.svg"
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None}, bbox_inches="tight")
        figures[name] = picture.getvalue()
        parts.append(f"![{figure.get_label()}](figures/{name}){{ .figure }}")
        plt.close(figure)
    for page in sorted(Path.cwd().glob("*.html")):
        name = f"{figure_name}-{page.name}"
        figures[name] = page.read_bytes()
        parts.append(f'<iframe class="viewer" src="figures/{name}" title="{page.stem}" loading="lazy"></iframe>')
        page.unlink()
    return "\n\n".join(parts), figures


@contextmanager
def _as_a_script() -> Iterator[None]:
    """Imports as for a script in this folder, figures kept, one thread, the same numbers each time; undone after."""
    path, modules, show = list(sys.path), set(sys.modules), plt.show
    settings, backend, random = matplotlib.rcParams.copy(), plt.get_backend(), torch.get_rng_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small are the lessons' tensors that more would only wait for each other
    sys.path.insert(0, str(HERE))
    plt.switch_backend("Agg")
    plt.show = lambda: None
    matplotlib.rcParams["svg.hashsalt"] = "regard"
    try:
        with TemporaryDirectory() as folder, chdir(folder):
            yield
    finally:
        plt.close("all")
        plt.show = show
        plt.switch_backend(backend)
        dict.update(matplotlib.rcParams, settings)
        torch.set_rng_state(random)
        torch.set_num_threads(threads)
        torch.set_printoptions(profile="default")
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == HERE:
                del sys.modules[name]


def main() -> None:
    """Write every page and figure into the folder that is given."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} FOLDER")
    for path in lessons():
        for language, page in render(path).items():
            folder = Path(sys.argv[1]) / language
            (folder / "figures").mkdir(parents=True, exist_ok=True)
            (folder / f"{path.stem}.md").write_text(page.markdown, encoding="utf-8")
            for name, svg in page.figures.items():
                (folder / "figures" / name).write_bytes(svg)


if __name__ == "__main__":
    main()

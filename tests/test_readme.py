"""Every Python block of the READMEs runs, in order, in one namespace; what they show and link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import regard as rg

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-TW.md"]
each_readme = pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)


@each_readme
def test_the_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes a page
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert tuple(names["out"].shape) == (1, 8, 1000, 64)  # type: ignore[attr-defined]
    assert (tmp_path / "attention.html").stat().st_size > 10_000


@each_readme
def test_the_picture_is_what_the_mask_draws(path: Path) -> None:
    drawn = (rg.Causal() & rg.SlidingWindow(2)).show(5, 5)
    assert drawn in path.read_text(encoding="utf-8")


@each_readme
def test_its_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert f"docs/assets/viewer{path.stem.removeprefix('README').replace('.', '-')}.png" in targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_both_say_the_same_code() -> None:
    def code(path: Path) -> str:
        blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
        return re.sub(r" +#.*", "", "".join(blocks))

    english = code(READMES[0])
    for line in code(READMES[1]).splitlines():
        assert line in english, f"the English README does not say {line!r}"

"""Kernels that were built from other sources than those beside them are refused."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

import regard as rg
from regard.backends.native import library, sources

needs_kernels = pytest.mark.skipif(not library.supported(), reason="no kernels were built here")


def tree(folder: Path, **files: str) -> Path:
    """A source tree with a little in it."""
    (folder / "native").mkdir(parents=True)
    for name, text in {"abi.h": "", "kernels.cpp": "", **files}.items():
        (folder / "native" / name).write_text(text)
    (folder / "CMakeLists.txt").write_text("")
    return folder


def test_every_source_counts(tmp_path: Path) -> None:
    trees = [tree(tmp_path / "a"), tree(tmp_path / "b", **{"tile.h": ""}), tree(tmp_path / "c", **{"abi.h": "//"})]
    assert len({sources.digest(one) for one in trees}) == 3
    assert sources.digest(trees[0]) == sources.digest(tree(tmp_path / "again"))


def test_without_sources_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert sources.digest(tmp_path) is None


@needs_kernels
@pytest.mark.skipif(sources.digest() is None, reason="regard is not installed from its source tree")
def test_cmake_counts_as_python_does() -> None:
    assert {library.kernels(name).regard_build().decode() for name in library.supported()} == {sources.digest()}


@needs_kernels
@pytest.mark.parametrize("older", [False, True])
def test_stale_kernels_are_refused(monkeypatch: pytest.MonkeyPatch, older: bool) -> None:
    monkeypatch.setattr(sources, "digest", lambda: "0123456789abcdef")
    what = "sources older than these checks" if older else "[0-9a-f]{16}"
    # The process itself stands for kernels from before there was a digest.
    stale = ctypes.CDLL(None if older else str(library.installed()["portable"]))
    with pytest.raises(rg.StaleError, match=f"was built from {what}.*are now 0123456789abcdef.*pip install --editable"):
        sources.check_build(stale)

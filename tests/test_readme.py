"""Every Python block of the README runs, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path

import regard as rg

README = Path(__file__).parent.parent / "README.md"


def test_the_python_blocks_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert tuple(names["out"].shape) == (1, 8, 1000, 64)  # type: ignore[attr-defined]


def test_the_picture_is_what_the_mask_draws() -> None:
    drawn = (rg.Causal() & rg.SlidingWindow(2)).show(5, 5)
    assert drawn in README.read_text()

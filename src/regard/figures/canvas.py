"""What figures share: matplotlib on first use, its fonts, and labels that may hold anything."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from regard._errors import MissingError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE_FONTS = ("Noto Sans CJK TC", "Noto Sans CJK SC", "Noto Sans CJK JP", "Droid Sans Fallback", "WenQuanYi Zen Hei")
"""Fonts with Chinese, Japanese and Korean characters, by preference."""

_LONGEST = 14
_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "": "∅"}


def pyplot() -> Any:
    """``matplotlib.pyplot``.

    Raises:
        MissingError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingError("figures need matplotlib: pip install 'regard[plot]'.") from error
    return plt


def families() -> list[str]:
    """The font families for labels: matplotlib's own first, then those here that have Chinese characters."""
    from matplotlib import font_manager, rcParams

    there = {font.name for font in font_manager.fontManager.ttflist}
    own = [name for name in rcParams["font.sans-serif"] if name in there]
    return [*own[:1], *(name for name in WIDE_FONTS if name in there)] or ["sans-serif"]


def label(token: str) -> str:
    """A token as a label: white space and what cannot be seen made visible, long ones cut in the middle."""
    if token in _VISIBLE:
        return _VISIBLE[token]
    shown = "".join(_VISIBLE.get(c, c) if unicodedata.category(c)[0] != "C" or c in _VISIBLE else "�" for c in token)
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST // 2]}…{shown[-_LONGEST // 2 + 1 :]}"
    # A dollar would begin a formula.
    return shown.replace("$", r"\$")


def coordinates(axes: Axes) -> None:
    """Thin ticks and no frame."""
    axes.tick_params(length=2, width=0.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)

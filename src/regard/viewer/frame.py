"""A page inside another one."""

from __future__ import annotations

import html


def frame_html(page: str, *, height: int = 720) -> str:
    """A page as an ``<iframe srcdoc>`` that notebooks show, and that stays when they are converted.

    The frame is sandboxed: the page's scripts run, and reach nothing of the notebook.
    """
    return (
        f'<iframe sandbox="allow-scripts allow-downloads" style="width:100%;height:{int(height)}px;border:0" '
        f'title="attention" srcdoc="{html.escape(page)}"></iframe>'
    )

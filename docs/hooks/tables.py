"""Tables and pictures of the documentation that the library itself provides: masks and backends."""

from __future__ import annotations

import io
from functools import cache

import matplotlib.pyplot as plt
import torch

import regard as rg
from regard._dispatch import backend, backend_names

MASKS = {
    "Everything()": "every key",
    "Causal()": "`k ≤ q`: the past and oneself",
    "SlidingWindow(3, 3)": "`q − 3 ≤ k ≤ q + 3`: at most three away",
    "Causal() & SlidingWindow(3)": "the last three and oneself",
    "Prefix(4)": "`k < 4`",
    "Causal() | Prefix(4)": "a prompt of four that all may see, then causal",
    "Chunked(4)": "`q // 4 == k // 4`: chunks of four",
    "Causal() & Dilated(3)": "every third of the past",
    "Causal() & Document.from_lengths([5, 3, 4])": "three causal documents packed into one row",
    "Padding(torch.tensor([9]))": "`k < 9`: the rest is padding",
    "Causal() & ~Chunked(4)": "the past, without one's own chunk",
    "Causal() & (SlidingWindow(2) | Prefix(1))": "a window, and the first token as a sink",
}
_LENGTH = 12


def masks() -> str:
    """A table: a picture, the expression, what a query sees."""
    rows = ["| | mask | a query at `q` sees |", "|---|---|---|"]
    for n, (expression, meaning) in enumerate(MASKS.items()):
        alt = meaning.replace("`", "")
        rows.append(f"| ![{alt}](figures/mask-{n}.svg){{ .mask }} | `{expression}` | {meaning} |")
    return "\n".join(rows)


@cache
def mask_figures() -> dict[str, bytes]:
    """A picture of each mask, drawn by the mask."""
    made = {}
    for n, expression in enumerate(MASKS):
        mask = eval(expression, {"torch": torch, **vars(rg)})
        figure, ax = plt.subplots(figsize=(1.5, 1.5))
        mask.plot(_LENGTH, _LENGTH, ax=ax)
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="", title="")
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)
        made[f"mask-{n}.svg"] = picture.getvalue()
    return made


def backends() -> str:
    """What each backend declares of itself, in the order in which they are asked."""
    features = {
        "masks": "any mask",
        "score_mods": "score changes",
        "sinks": "sinks",
        "dropout": "dropout",
        "lse": "logsumexp",
        "lse_gradient": "its gradient",
        "higher_derivatives": "higher derivatives",
    }
    head = ["backend", "devices", "dtypes", *features.values()]
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    notes = []
    for name in backend_names():
        one = backend(name)
        can = one.capabilities
        dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in can.dtypes)
        cells = [f"`{name}`", ", ".join(can.devices) or "all", dtypes]
        cells += ["yes" if getattr(can, feature) else "–" for feature in features]
        rows.append(f"| {' | '.join(cells)} |")
        notes.append(f"* **`{name}`**: {one.summary}")
    return "\n".join(rows) + "\n\n" + "\n".join(notes)

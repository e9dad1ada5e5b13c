"""The tables and pictures of measured speed, from the records that ``regard bench --json`` wrote into ``docs/data``."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

DATA = Path(__file__).parents[1] / "data"
_GOOD, _BAD = "#2f6fc4", "#d9772b"


def records() -> list[tuple[str, dict[str, Any]]]:
    """Every record of a benchmark by the name of its file, in the order of the names."""
    found = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(DATA.glob("*.json"))]
    return [(name, record) for name, record in found if isinstance(record, dict) and record.get("cases")]


def machine(record: dict[str, Any]) -> str:
    """The machine of a record in words, from whatever it says of it."""
    known = dict(record.get("machine") or {})
    parts = [str(known.pop("processor", "an unnamed processor"))]
    if "cores" in known:
        parts.append(f"{known.pop('cores')} cores")
    if "capability" in known:
        parts.append(str(known.pop("capability")))
    if "torch" in known:
        parts.append(f"torch {known.pop('torch')}")
    if "threads" in known:
        parts.append(f"{known.pop('threads')} threads")
    return ", ".join(parts)


def tables() -> str:
    """For each record: what it is of, the machine, a picture, the table."""
    parts = []
    for name, record in records():
        parts += [f"## {_subject(name)}", f"On {machine(record)}."]
        parts.append(f"![ratios of time, ours to theirs](figures/{name}.svg)")
        rows = [
            "| case | ours / theirs | ours | theirs | against | promised | turns | of the peak |",
            "|---|---:|---:|---:|---|---:|---:|---:|",
        ]
        for case in record.get("cases", []):
            times = " | ".join(_seconds(case.get(key)) for key in ("seconds", "against_seconds"))
            rows.append(
                f"| {case['title']}; {_shape(case)} | **{case['ratio']:.3f}** | {times} | {case['against']} "
                f"| {_promise(case)} | {_turns(case)} | {_share(case)} |"
            )
        parts.append("\n".join(rows))
        for memory in record.get("memory") or []:
            parts.append(
                f"Memory: {memory['title']} at {memory['tokens']:,} tokens holds {memory['extra'] / 1e6:,.0f} MB "
                f"beyond what goes in and comes out ({memory['operands'] / 1e6:,.0f} MB): {memory['ratio']:.2f} of it; "
                f"promised is {memory['target']:g}."
            )
        growth = record.get("growth")
        if growth:
            fitted = [growth["fixed"] + growth["per_pair"] * n for n in growth["pairs"]]
            off = max(abs(took / line - 1) for took, line in zip(growth["seconds"], fitted, strict=True))
            parts.append(
                f"Growth: within a window, from {min(growth['pairs']):,} to {max(growth['pairs']):,} visible pairs, "
                f"time is {growth['fixed'] * 1e3:.2f} ms + {growth['per_pair'] * 1e9:.2f} ns a pair, "
                f"to within {off:.0%}."
            )
    if not parts:
        return "No record is checked in; `regard bench --json FILE` writes one."
    return "\n\n".join(parts)


@cache
def figures() -> dict[str, bytes]:
    """For each record one picture of its ratios, on a logarithmic scale around 1."""
    made = {}
    for name, record in records():
        cases = record.get("cases", [])
        figure, ax = plt.subplots(figsize=(9, 0.6 + 0.32 * len(cases)))
        ratios = [case["ratio"] for case in cases]
        ax.barh(range(len(cases)), [r - 1 for r in ratios], left=1, color=[_GOOD if r <= 1 else _BAD for r in ratios])
        for n, ratio in enumerate(ratios):
            ax.text(ratio, n, f" {ratio:.2g} ", va="center", ha="right" if ratio < 1 else "left", size=9)
        titles = [case["title"] for case in cases]
        names = [f"{t}; {_shape(case)}" if titles.count(t) > 1 else t for t, case in zip(titles, cases, strict=True)]
        ax.set_yticks(range(len(cases)), names, size=9)
        ax.set_xscale("log")
        low, high = min([*ratios, 0.5]), max([*ratios, 1.5])
        ax.set_xlim(low / 1.8, high * 1.5)
        ax.axvline(1, color="black", linewidth=0.8)
        ax.invert_yaxis()
        ax.set_xlabel("time, ours / theirs (left of 1: regard is faster)")
        ax.spines[["top", "right"]].set_visible(False)
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)
        made[f"{name}.svg"] = picture.getvalue()
    return made


def _subject(name: str) -> str:
    """What a record is of, from the name of its file: ``avx2-slow-cases`` is "Slow cases"."""
    return name.partition("-")[2].replace("-", " ").capitalize() or name


def _shape(case: dict[str, Any]) -> str:
    shape = " × ".join(f"{n:,}" for n in case.get("shape", []))
    dtype = case.get("dtype", "float32")
    return shape if dtype in case["title"] else f"{shape} {dtype}"


def _turns(case: dict[str, Any]) -> str:
    runs = case.get("runs")
    return f"{len(runs[0])}" if runs else ""


def _promise(case: dict[str, Any]) -> str:
    target, slack = case.get("target"), case.get("slack")
    if target is None:
        return ""
    mark = "✓" if case.get("met") else "✗"
    return f"{target:.2f} {mark}" if slack is None else f"+ {slack * 1e6:.0f} µs {mark}"


def _share(case: dict[str, Any]) -> str:
    share = case.get("share_of_peak")
    return "" if share is None else f"{share:.0%}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 1e-3:
        return f"{value * 1e6:,.1f} µs"
    return f"{value * 1e3:,.1f} ms" if value < 10 else f"{value:,.1f} s"

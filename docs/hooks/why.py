"""The table, the picture and the sentences of ``regard recall``, from the record that it wrote into ``docs/data``."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from regard.recall import Result
from regard.recall.picture import draw

RECORD = Path(__file__).parents[1] / "data" / "recall.json"
_HEADS = {"en": ("items between", "parameters", "learning rate"), "zh-TW": ("相隔幾個項目", "參數", "學習率")}


@cache
def result() -> Result:
    """What was measured."""
    return Result.restore(json.loads(RECORD.read_text(encoding="utf-8")))


def table(language: str = "en") -> str:
    """Right answers of each model at each distance."""
    found, (distance, parameters, rate) = result(), _HEADS[language]
    rows = [[distance, *found.accuracy], ["---:"] * (1 + len(found.accuracy))]
    for n, items in enumerate(found.experiment.distances):
        rows.append([f"{items}", *(f"{shares[n]:.1%}" for shares in found.accuracy.values())])
    rows.append([parameters, *(f"{found.parameters[kind]:,}" for kind in found.accuracy)])
    rows.append([rate, *(f"{found.learning_rates[kind]:g}" for kind in found.accuracy)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def table_zh_tw() -> str:
    """The same in 繁體中文."""
    return table("zh-TW")


def statements() -> str:
    """What the numbers say, a line each."""
    return "\n".join(f"* {sentence}" for sentence in result().statements())


@cache
def figures() -> dict[str, bytes]:
    """Accuracy against distance."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recall.svg"
        draw(result(), path)
        return {path.name: path.read_bytes()}

"""The table, the picture and the sentences of ``regard recall``, from the record that it wrote into ``docs/data``."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from regard.recall import Result
from regard.recall.experiment import NEAR
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


def statements_zh_tw() -> str:
    """What the numbers say, in 繁體中文."""
    found, last, said = result(), result().experiment.distances[-1], []
    for kind, shares in found.accuracy.items():
        name, good = _name(kind), found.recalls(kind)
        where = f"相隔 {_listed(good)} 個項目時答對九成以上" if good else "在任何距離都答不到九成"
        said.append(f"* {name}{where}；相隔 {last} 個項目時答對 {shares[-1]:.0%}。")
    for kind in found.accuracy:
        if kind != "attention":
            near = found.keeps_up(kind)
            where = f"相隔 {_listed(near)} 個項目時跟得上" if near else "在任何距離都跟不上"
            said.append(f"* {_name(kind)}{where}注意力（相差不到 {NEAR:.0%}）。")
    return "\n".join(said)


def _name(kind: str) -> str:
    return "注意力" if kind == "attention" else f"{kind} "


def _listed(distances: list[int]) -> str:
    return "、".join(map(str, distances))


@cache
def figures() -> dict[str, bytes]:
    """Accuracy against distance."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recall.svg"
        draw(result(), path)
        return {path.name: path.read_bytes()}

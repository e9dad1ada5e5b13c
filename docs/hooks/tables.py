"""Tables and pictures of the documentation that the library itself provides: masks and backends."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
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
MEANINGS_ZH_TW = (
    "所有的鍵",
    "`k ≤ q`：過去和自己",
    "`q − 3 ≤ k ≤ q + 3`：前後各三個以內",
    "前面三個和自己",
    "`k < 4`",
    "開頭四個是大家都看得到的提示，其餘維持因果",
    "`q // 4 == k // 4`：四個一段",
    "過去裡每隔三個看一個",
    "三份因果的文件接成一列",
    "`k < 9`：後面都是補齊的",
    "過去，但不含自己這一段",
    "一個視窗，再加上當作匯聚點的第一個 token",
)
SUMMARIES_ZH_TW = {
    "native": "CPU 上的 C++ kernel，正向、反向都有，依處理器的指令集挑選",
    "torch": "torch 內建的融合 kernel，只在意思完全相同時使用",
    "flex": "用同樣的遮罩和分數修改來呼叫 FlexAttention；CUDA",
    "blockwise": "純 PyTorch 的線上 softmax，只算看得到的區塊，記憶體 O(L)；什麼都能算",
    "reference": "定義本身：稠密、好讀、任意階導數都有",
}
_LENGTH = 12


def masks(head: str = "| | mask | a query at `q` sees |", meanings: Sequence[str] = tuple(MASKS.values())) -> str:
    """A table: a picture, the expression, what a query sees."""
    rows = [head, "|---|---|---|"]
    for n, (expression, meaning) in enumerate(zip(MASKS, meanings, strict=True)):
        alt = meaning.replace("`", "")
        rows.append(f"| ![{alt}](figures/mask-{n}.svg){{ .mask }} | `{expression}` | {meaning} |")
    return "\n".join(rows)


def masks_zh_tw() -> str:
    """The same in 繁體中文."""
    return masks("| | 遮罩 | 位置 `q` 的查詢看得到 |", MEANINGS_ZH_TW)


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


FEATURES = ("masks", "score_mods", "sinks", "dropout", "lse", "lse_gradient", "higher_derivatives")


def backends() -> str:
    """What each backend declares of itself, in the order in which they are asked."""
    features = ["any mask", "score changes", "sinks", "dropout", "logsumexp", "its gradient", "higher derivatives"]
    summaries = {name: backend(name).summary for name in backend_names()}
    return _backends(["backend", "devices", "dtypes", *features], "all", "yes", summaries)


def backends_zh_tw() -> str:
    """The same in 繁體中文."""
    features = ["任意遮罩", "分數修改", "sink", "dropout", "logsumexp", "它的梯度", "高階導數"]
    return _backends(["後端", "裝置", "型別", *features], "全部", "可", SUMMARIES_ZH_TW)


def _backends(head: list[str], every: str, yes: str, summaries: Mapping[str, str]) -> str:
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in backend_names():
        can = backend(name).capabilities
        dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in can.dtypes)
        cells = [f"`{name}`", ", ".join(can.devices) or every, dtypes]
        cells += [yes if getattr(can, feature) else "–" for feature in FEATURES]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", *(f"* **`{name}`**: {summaries[name]}" for name in backend_names())])

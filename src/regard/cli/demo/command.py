"""The command ``regard demo``: the tour, a training, text, and a page of what the heads learned."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text as Line

from regard.cli.console import make_console

if TYPE_CHECKING:
    from regard.lm import ModelConfig, Run, Text, Tokenizer, Training

_GOAL = 2.0
_STEPS, _QUICK_STEPS = 800, 200
_CHARACTERS = 400


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="the tour, a model trained in minutes, its text, and a page of its heads",
        description="The tour of attention on six tokens; then a language model trained on an embedded text by the "
        "native kernels; then text from it, and one HTML page of what its heads learned. About three minutes on two "
        "cores. Called again, it goes on from what is in its folder.",
    )
    parser.add_argument("--quick", action="store_true", help="a shorter training: a minute in all")
    parser.add_argument("--corpus", default="shakespeare", help="shakespeare (the default) or tang")
    parser.add_argument(
        "--out", type=Path, help="folder for everything (default: regard-demo, with corpus and --quick)"
    )
    parser.add_argument("--no-tour", action="store_true", help="begin with the training")
    parser.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 130 when the training was interrupted."""
    from regard import lm

    began = time.monotonic()
    text = lm.embedded(arguments.corpus)
    name = "-".join(["regard-demo", *([] if text.source == "shakespeare" else [text.source])])
    out: Path = arguments.out or Path(name + ("-quick" if arguments.quick else ""))
    console = make_console()
    if not arguments.no_tour:
        _tour()
    done = _train(console, text, out, arguments)
    if done.step < done.training.steps:
        console.print(Line(f"stopped at step {done.step}; the same command goes on", style="bold"))
        return 130
    _report(console, text, done, out)
    console.print(Line(f"\n{time.monotonic() - began:.0f} seconds in all", style="dim"))
    return 0


def _tour() -> None:
    from regard.cli.tour import command as tour

    tour.run(argparse.Namespace(text=None, section=None, pause=False))


def _settings(text: Text, tokenizer: Tokenizer, *, quick: bool) -> tuple[ModelConfig, Training]:
    from regard import lm
    from regard._dispatch import backend

    native = backend("native").missing() is None
    config = lm.preset("small", vocabulary=tokenizer.size, backend="native" if native else None)
    steps = _QUICK_STEPS if quick else _STEPS
    return config, lm.Training(steps=steps, warmup=steps // 10, learning_rate=4e-3, evaluate_every=max(steps // 5, 1))


def _train(console: Console, text: Text, out: Path, arguments: argparse.Namespace) -> Run:
    from regard import lm
    from regard._dispatch import backend
    from regard.cli.training import Screen, interruptible
    from regard.lm.checkpoint import checkpoints

    tokenizer = lm.Characters.of(text.text)
    config, training = _settings(text, tokenizer, quick=arguments.quick)
    _head(console, f"A language model learns {text.source}, character by character")
    absent = backend("native").missing()
    console.print(
        Line(
            "attention runs on the native kernels"
            if absent is None
            else f"the native kernels are not here ({absent}), so another backend computes attention"
        )
    )
    with interruptible() as stop, Screen(console, out) as screen:
        where = lm.Where(out, compile=arguments.compile, watcher=screen, stop=stop)
        if checkpoints(out):
            console.print(Line(f"{out} holds a run already; going on with it"))
            return lm.resume(text, where)
        return lm.train(text, tokenizer, config, training, where)


def _report(console: Console, text: Text, done: Run, out: Path) -> None:
    from regard import lm
    from regard.cli.demo.heads import SENTENCES, look

    run, model = lm.load_run(out)
    loss = done.history[-1].per_character
    _head(console, "How well it learned")
    console.print(Line(f"held-out loss {loss:.3f} nats a character: {_compared(loss, run.tokenizer.size)}"))
    if text.source == "shakespeare":
        verdict = "below" if loss < _GOAL else "not yet below"
        console.print(Line(f"that is {verdict} {_GOAL} nats"))
    _head(console, "Text from the model")
    start = run.tokenizer.encode("\n\n")
    ids = lm.generate(model, start, _CHARACTERS, lm.Sampling(temperature=0.7, seed=1))
    written = "".join(run.tokenizer.stream(ids)).strip()
    (out / "text.txt").write_text(written + "\n", encoding="utf-8")
    console.print(Line(written, style="italic"))
    _head(console, "What its heads learned")
    passage = _passage(text, run)
    findings = look(run, model, passage, out / "heads.html")
    console.print(Line("on a passage that it never saw, the heads that score highest:"))
    for one in findings:
        named = f"  layer {one.layer} head {one.head}   {one.value:6.3f}   {one.score:<16}"
        console.print(Line(f"{named} {SENTENCES[one.score]}"))
    _head(console, "In your hands")
    files = {"heads.html": "open it in a browser", "text.txt": "the text", "loss.png": "how it learned"}
    console.print(Line(f"everything is in {out.resolve()}:"))
    for name, what in files.items():
        if (out / name).exists():
            console.print(Line(f"  {name:<12}{what}"))
    prompt = "春" if text.source == "tang" else "My lord"
    other = "tang" if text.source == "shakespeare" else "shakespeare"
    console.print(Line("\ntry next:", style="bold"))
    for line in (
        f'regard generate {out} "{prompt}" --temperature 0.6',
        f"regard demo --corpus {other} --no-tour",
        "regard train your.txt --tokens bpe",
        "regard recall",
    ):
        console.print(Line(f"  {line}"), soft_wrap=True)


def _compared(loss: float, size: int) -> str:
    import math

    return f"as if it chose among {math.exp(loss):.1f} characters instead of {size:,}"


def _passage(text: Text, run: Run) -> str:
    """A context's length of the held-out end, from the start of a paragraph."""
    start = len(text.text) - round(len(text.text) * run.training.held_out)
    return text.text[text.text.index("\n\n", start) + 2 :][: run.config.context_length]


def _head(console: Console, title: str) -> None:
    console.print()
    line = Line(f"{title} ", style="bold")
    console.print(line.append("─" * max(console.width - line.cell_len, 0), "dim"), no_wrap=True, crop=True)
    console.print()

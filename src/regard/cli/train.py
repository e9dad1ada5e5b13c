"""``regard train``: a language model from any text."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text as Line

from regard._errors import ArgumentError
from regard.cli.console import make_console

if TYPE_CHECKING:
    from regard.lm import ModelConfig, Run, Text, Tokenizer, Training

_MODEL = ("context_length", "width", "layers", "heads", "kv_heads", "positions", "window", "dropout", "backend")
_TRAINING = (
    *("steps", "batch", "accumulate", "learning_rate", "warmup", "weight_decay", "clip", "held_out"),
    *("evaluate_every", "evaluate_tokens", "bf16", "seed"),
)
_RATE_TIMES_WIDTH = 0.256
"""Wider models take smaller steps: 0.002 at a width of 128."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "train",
        help="train a language model on any text",
        description="Train a small language model on UTF-8 text files, or on an embedded corpus. Ctrl-C saves.",
        epilog="examples:\n  regard train\n  regard train --corpus tang --out runs/tang\n"
        "  regard train book.txt --preset medium --tokens bpe --out runs/book\n"
        "  regard train book.txt --out runs/book --resume\n"
        "  torchrun --nproc-per-node 2 -m regard train book.txt\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="UTF-8 text")
    add("--corpus", help="an embedded corpus instead of files: shakespeare (the default) or tang")
    add("--out", type=Path, help="folder of the run (default: runs/ and the name of the text)")
    add("--resume", action="store_true", help="go on with the last checkpoint in --out, with its settings")
    model = parser.add_argument_group("model").add_argument
    model("--preset", help="sizes by name: toy, small (the default), medium, gpt2-small")
    model("--tokens", choices=("characters", "bpe"), help="what a token is (default: characters)")
    model("--vocabulary", type=int, metavar="N", help="tokens of byte pairs (default: the preset's)")
    model("--context", dest="context_length", type=int, metavar="N", help="tokens that the model sees at once")
    for name in ("width", "layers", "heads"):
        model(f"--{name}", type=int, metavar="N")
    model("--kv-heads", type=int, metavar="N", help="key/value heads (default: as many as heads)")
    model("--positions", help="rotary or learned")
    model("--window", type=int, metavar="N", help="other keys that a token sees (default: its whole past)")
    model("--dropout", type=float, metavar="P")
    model("--backend", help="of the attention (default: chosen by call)")
    training = parser.add_argument_group("training").add_argument
    for name in ("steps", "batch", "accumulate", "warmup", "seed", "evaluate-every", "evaluate-tokens"):
        training(f"--{name}", type=int, metavar="N")
    training("--learning-rate", type=float, metavar="X", help=f"its highest (default: {_RATE_TIMES_WIDTH} / width)")
    for name in ("weight-decay", "clip", "held-out"):
        training(f"--{name}", type=float, metavar="X")
    training("--bf16", action="store_true", default=None, help="forward pass in bfloat16 under autocast")
    training("--compile", action="store_true", help="compile the model with torch.compile")
    training("--device", default="cpu", help="default: %(default)s")
    training(
        "--save-every", type=int, default=500, metavar="N", help="steps between checkpoints (default: %(default)s)"
    )
    training(
        "--sample-every", type=int, default=500, metavar="N", help="steps between samples, 0 for none (default: 500)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on; 130 when it was interrupted."""
    from regard import lm
    from regard.cli.training import Screen, interruptible

    text = _text(arguments)
    out: Path = arguments.out or Path("runs") / Path(text.source.split(", ")[0]).stem
    console = make_console()
    with interruptible() as stop:
        screen = Screen(console, out, arguments.sample_every)
        where = lm.Where(out, arguments.device, arguments.compile, arguments.save_every, screen, stop)
        with screen:
            if arguments.resume:
                known, _ = lm.load_run(out)
                _check_same(arguments, known, out)
                done = lm.resume(text, where)
            else:
                tokenizer, config, training = _settings(arguments, text)
                done = lm.train(text, tokenizer, config, training, where)
    if not screen.first:
        return 0
    again = f"regard generate {shlex.quote(str(out))} {_prompt(text)}"
    if done.step < done.training.steps:
        console.print(
            Line(f"stopped at step {done.step} of {done.training.steps}; the same command with --resume goes on")
        )
        return 130
    console.print(Line(f"try next: {again}"), soft_wrap=True)
    return 0


def _prompt(text: Text) -> str:
    """Something to go on from that the model can read, as a shell takes it."""
    known = {"shakespeare": "My lord", "tang": "春"}
    return shlex.quote(known.get(text.source) or " ".join(text.text.split()[:2])[:24])


def _text(arguments: argparse.Namespace) -> Text:
    from regard import lm

    if arguments.files and arguments.corpus:
        raise ArgumentError("give files or --corpus, not both.")
    return lm.read_files(arguments.files) if arguments.files else lm.embedded(arguments.corpus or "shakespeare")


def _settings(arguments: argparse.Namespace, text: Text) -> tuple[Tokenizer, ModelConfig, Training]:
    from regard import lm

    config = lm.preset(arguments.preset or "small", **_given(arguments, _MODEL))
    given = {"learning_rate": _RATE_TIMES_WIDTH / config.width} | _given(arguments, _TRAINING)
    training = lm.Training(**given)
    if arguments.tokens == "bpe":
        return lm.BytePairs.of(text.text, arguments.vocabulary or max(config.vocabulary, 1024)), config, training
    if arguments.vocabulary is not None:
        raise ArgumentError("--vocabulary is the number of byte pairs; it goes with --tokens bpe.")
    return lm.Characters.of(text.text), config, training


def _given(arguments: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """The settings that the command line names; the others keep their defaults."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def _check_same(arguments: argparse.Namespace, known: Run, out: Path) -> None:
    """Raise if the command line asks for something else than the checkpoint is.

    Raises:
        ArgumentError: the settings that differ, with both values.
    """
    from regard import lm

    was = dataclasses.asdict(known.config) | dataclasses.asdict(known.training)
    asked = _given(arguments, _MODEL) | _given(arguments, _TRAINING)
    if arguments.preset is not None:
        sizes = dataclasses.asdict(lm.preset(arguments.preset))
        asked = {name: sizes[name] for name in _MODEL if name != "backend"} | asked
    kind = "bpe" if isinstance(known.tokenizer, lm.BytePairs) else "characters"
    was |= {"tokens": kind, "vocabulary": known.tokenizer.size}
    asked |= _given(arguments, ("tokens", "vocabulary"))
    other = [f"{name} {was[name]}, not {value}" for name, value in asked.items() if was[name] != value]
    if other:
        raise ArgumentError(
            f"--resume goes on with the settings of the checkpoint in {out}, which has {'; '.join(other)}. Leave them "
            "out, or train anew with another --out."
        )

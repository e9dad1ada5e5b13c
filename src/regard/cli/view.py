"""``regard view``: look at a saved record, or at a model on a text, in the browser."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from regard._errors import ArgumentError
from regard.cli.console import make_console

if TYPE_CHECKING:
    from regard.head_scores import HeadScores
    from regard.recording import Record

_FEW_COLUMNS = ("sink_mass_1", "previous_token")
_EVERY_WEIGHT = ("prefix_matching", "duplicate_token")
_MOST_WEIGHTS = 1 << 28
"""A record of more weights than these is not gone over before its page is shown."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "view",
        help="look at the attention of a saved record, or of a model on a text, in the browser",
        description="Serve a record that rec.save(PATH) wrote, or the attention of a model on a text, on 127.0.0.1, at "
        "any length; pooled maps are kept beside the record. With --html it becomes one page that needs nothing else.",
    )
    parser.add_argument("record", type=Path, nargs="?", metavar="RECORD", help="what rec.save(PATH) wrote")
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="instead: a model of Hugging Face transformers")
    parser.add_argument("--text", type=Path, metavar="FILE", help="what the model reads, in UTF-8")
    parser.add_argument("--max-tokens", type=int, help="how many tokens of the text at most (default: all)")
    parser.add_argument("--save", type=Path, metavar="PATH", help="also keep the record of --model")
    parser.add_argument("--compare", type=Path, metavar="RECORD", help="a second record, to be seen beside the first")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page instead of serving")
    parser.add_argument(
        "--no-scores", action="store_true", help="do not name the heads that show a known pattern most clearly"
    )
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted, or write the page."""
    from regard import load_record
    from regard.viewer import save_html, serve

    record = _recorded(arguments)
    other = None if arguments.compare is None else load_record(arguments.compare)
    console = make_console()
    scores = None if arguments.no_scores else _patterns(record)
    if arguments.html is not None:
        console.print(
            f"saved {save_html(record, arguments.html, compare=other, scores=scores)}", highlight=False, soft_wrap=True
        )
        return 0
    path: Path | None = arguments.record or arguments.save
    cache = None if path is None else path.with_name(path.name + ".maps")
    server = serve(record, compare=other, scores=scores, port=arguments.port, cache=cache)
    console.print(f"{server.url}  (Ctrl-C stops)", highlight=False, soft_wrap=True)
    if not arguments.no_browser:
        server.open()
    server.wait()
    return 0


def _patterns(record: Record) -> HeadScores | None:
    """The scores that name a known pattern: those of a few columns always, the others while weights are few."""
    run = record.run(0)
    if run.runs[0].query_tokens is not None:
        return None
    weights = sum(math.prod(layer.weights.shape) for layer in run.layers)
    names = list(_FEW_COLUMNS)
    if run.runs[0].ids is not None and weights <= _MOST_WEIGHTS:
        names.extend(_EVERY_WEIGHT)
    return run.head_scores(names)


def _recorded(arguments: argparse.Namespace) -> Record:
    from regard import load_record
    from regard.recording.text import record_text

    asked = (arguments.record is not None, arguments.model is not None, arguments.text is not None)
    if asked not in ((True, False, False), (False, True, True)):
        raise ArgumentError("regard view takes a RECORD, or --model and --text together.")
    if arguments.record is not None:
        return load_record(arguments.record)
    try:
        text = arguments.text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"--text is a file in UTF-8: cannot read {str(arguments.text)!r} ({error}).") from error
    record = record_text(arguments.model, text, max_tokens=arguments.max_tokens, progress=True)
    if arguments.save is not None:
        record.save(arguments.save)
    return record

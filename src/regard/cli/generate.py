"""``regard generate``: text from a trained model, as it comes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "generate",
        help="text from a trained model, token by token",
        description="Go on with a text, token by token, by the last checkpoint of a run.",
        epilog='examples:\n  regard generate runs/shakespeare "My lord"\n'
        '  regard generate runs/tang "春" --temperature 0.9 --top-p 0.95 --seed 7\n',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder that 'regard train' wrote")
    parser.add_argument("prompt", nargs="?", default="\n", help="text to go on from (default: a new line)")
    parser.add_argument("--count", type=int, default=400, metavar="N", help="new tokens (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest (default: %(default)s)")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens only")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest that sum to P")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the prompt and what the model adds."""
    from regard import lm
    from regard.cli.console import make_console
    from regard.lm.loop import device_of

    sampling = lm.Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)
    run, model = lm.load_run(arguments.folder, device_of(arguments.device))
    ids = run.tokenizer.encode(arguments.prompt)
    new = lm.generate(model, ids, arguments.count, sampling)
    make_console()  # so that letters which the terminal lacks do not end it
    sys.stdout.write(arguments.prompt.lstrip("\n"))
    for part in run.tokenizer.stream(new):
        sys.stdout.write(part)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return 0

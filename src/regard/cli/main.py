"""The entry point: one parser, one module a command."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import regard
from regard._errors import RegardError
from regard.bench import cli as bench
from regard.cli import explain, generate, info, recall, train, view
from regard.cli.demo import command as demo
from regard.cli.tour import command as tour


class Command(Protocol):
    """A module that adds one command; its parser's ``run`` takes the parsed arguments and returns the exit status."""

    def register(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser], /) -> None:
        """Add the command's parser, with ``set_defaults(run=…)``."""


COMMANDS: tuple[Command, ...] = (demo, tour, train, generate, recall, explain, bench, info, view)

_EXAMPLES = """\
examples:
  regard demo                              all of it in three minutes
  regard tour                              attention from scratch, every number shown
  regard tour --text "any words you like"
  regard train book.txt                    a language model from any text; then: regard generate
  regard explain --q-len 4096 --mask "Causal() & SlidingWindow(255)"
  regard info                              what works on this machine, and why something does not
"""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.rstrip('.')}. See '{self.prog} --help'.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``regard`` with these arguments, default ``sys.argv[1:]``; returns the exit status.

    0 is success, 2 a command line that cannot be followed or a file that cannot be used, 130 an interruption, 141 an
    output that nobody reads on.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        return _run(arguments)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    except RegardError as error:
        print(f"regard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever was reading, such as ``head``, has seen enough; what is still to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"regard: {where}{error.strerror or error}.", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    parser = _parser()
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.register(subparsers)
    if not arguments:
        parser.print_help()
        return 0
    if not arguments[0].startswith("-") and arguments[0] not in subparsers.choices:
        parser.error(_unknown(arguments[0], list(subparsers.choices)))
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.error(f"say which command: {', '.join(subparsers.choices)}")
    run: Callable[[argparse.Namespace], int] = parsed.run
    status = run(parsed)
    sys.stdout.flush()
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="regard",
        description="Attention you can read, trust, run at the machine's limit, and look into at any length.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"regard {regard.__version__}")
    return parser


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return f"there is no command {name!r}{meant}; the commands are {', '.join(known)}"

"""``regard view``: look at a saved record in the browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from regard.cli.console import make_console


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "view",
        help="look at a saved record of attention in the browser",
        description="Serve a record that rec.save(PATH) wrote, on 127.0.0.1, at any length; pooled maps are kept "
        "beside it. With --html it becomes one page that needs nothing else.",
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="what rec.save(PATH) wrote")
    parser.add_argument("--compare", type=Path, metavar="RECORD", help="a second record, to be seen beside the first")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page instead of serving")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted, or write the page."""
    from regard import load_record
    from regard.viewer import save_html, serve

    record = load_record(arguments.record)
    other = None if arguments.compare is None else load_record(arguments.compare)
    console = make_console()
    if arguments.html is not None:
        console.print(f"saved {save_html(record, arguments.html, compare=other)}", highlight=False, soft_wrap=True)
        return 0
    path: Path = arguments.record
    cache = path.with_name(path.name + ".maps")
    server = serve(record, compare=other, port=arguments.port, cache=cache)
    console.print(f"{server.url}  (Ctrl-C stops)", highlight=False, soft_wrap=True)
    if not arguments.no_browser:
        server.open()
    server.wait()
    return 0

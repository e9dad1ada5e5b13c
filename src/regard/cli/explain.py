"""``regard explain``: what a call of these sizes would do, without doing it."""

from __future__ import annotations

import argparse

import torch
from rich.text import Text

import regard
from regard._errors import ArgumentError
from regard.cli.console import make_console
from regard.cli.mask_expression import parse_mask

_DTYPES = ("float32", "bfloat16", "float16", "float64")

_DESCRIPTION = """\
Say which backend regard.attention would choose for a call of these sizes, why it would not take another, how much of
the mask is visible, and what the call costs. Nothing is computed.
"""

_EPILOG = """\
masks: Causal() SlidingWindow(left, right) SlidingWindow.of_width(w) Prefix(n) Chunked(n) Dilated(n) Everything()
       Nothing() Padding([lengths]) Document([ids]) Document.from_lengths([lengths]), joined by & | ~

examples:
  regard explain
  regard explain --q-len 4096 --mask "Causal() & SlidingWindow(255)"
  regard explain --heads 32 --kv-heads 8 --q-len 1 --k-len 32768 --dtype bfloat16
  regard explain --q-len 4096 --mask "Causal() & Document.from_lengths([1000, 3096])" --grad --backend torch
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "explain",
        help="which backend a call would take, why not another, and what it costs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="sequences (default: 1)")
    parser.add_argument("--heads", type=int, default=8, metavar="H", help="query heads (default: 8)")
    parser.add_argument("--kv-heads", type=int, metavar="HKV", help="key/value heads (default: as many as --heads)")
    parser.add_argument("--q-len", type=int, default=1024, metavar="LQ", help="queries (default: 1024)")
    parser.add_argument("--k-len", type=int, metavar="LK", help="keys (default: as many as --q-len)")
    parser.add_argument("--dim", type=int, default=64, metavar="D", help="features of a head (default: 64)")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="default: float32")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda (default: cpu)")
    parser.add_argument("--mask", default="Causal()", metavar="EXPRESSION", help="default: 'Causal()'")
    parser.add_argument("--softcap", type=float, metavar="CAP", help="cap the scores softly, as Gemma 2 does")
    parser.add_argument("--dropout", type=float, default=0.0, metavar="P", help="dropout of the weights (default: 0)")
    parser.add_argument("--grad", action="store_true", help="gradients will be wanted")
    parser.add_argument("--backend", help="ask for this backend instead of letting regard choose")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    kv_heads = arguments.heads if arguments.kv_heads is None else arguments.kv_heads
    k_len = arguments.q_len if arguments.k_len is None else arguments.k_len
    q = _operand(arguments, arguments.heads, arguments.q_len)
    k = _operand(arguments, kv_heads, k_len)
    plan = regard.explain(
        q,
        k,
        k,
        mask=parse_mask(arguments.mask).to(q.device),
        score_mod=None if arguments.softcap is None else regard.Softcap(arguments.softcap),
        dropout_p=arguments.dropout,
        backend=arguments.backend,
    )
    make_console().print(Text(str(plan)), soft_wrap=True)
    return 0


def _operand(arguments: argparse.Namespace, heads: int, length: int) -> torch.Tensor:
    """Memory that is reserved and never touched."""
    sizes = (arguments.batch, heads, length, arguments.dim)
    if min(sizes) < 0:
        raise ArgumentError(f"sizes count something and must be at least 0: got (B, H, L, D) = {sizes}.")
    try:
        device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
        return torch.empty(sizes, dtype=dtype, device=device).requires_grad_(arguments.grad)
    except (RuntimeError, AssertionError, OverflowError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ArgumentError(
            f"a {arguments.dtype} tensor of (B, H, L, D) = {sizes} cannot be had on {arguments.device!r}: {reason}."
        ) from None

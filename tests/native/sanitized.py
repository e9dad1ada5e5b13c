"""The drawn cases of the agreement tests, through kernels that were built with sanitizers; what they find ends the run.

``make sanitize`` builds the kernels and runs this with the sanitizers' runtime loaded first, as they want it:

    LD_PRELOAD=$(g++ -print-file-name=libasan.so) python tests/native/sanitized.py build/sanitize --cases 2000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

import regard as rg
from regard import _ready
from regard._dispatch import backend
from regard.backends.native import library
from regard.testing.cases import make_case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the sanitized libraries are")
    parser.add_argument("--cases", type=int, default=2000, help="drawn cases (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop drawing after so long")
    arguments = parser.parse_args()
    files = {name: arguments.folder / f"libregard_{name}.so" for name in library.VARIANTS}
    library.installed = lambda: {name: file for name, file in files.items() if file.exists()}  # type: ignore[assignment]
    if not library.supported():
        print(f"no kernels in {arguments.folder}", file=sys.stderr)
        return 1
    torch.set_num_threads(2)
    began, ran, seed = time.monotonic(), 0, arguments.first
    while seed < arguments.first + arguments.cases and time.monotonic() - began < arguments.seconds:
        for name in library.supported():
            library.variant = lambda name=name: name  # type: ignore[assignment]
            _ready.forget()
            ran += run(seed)
        seed += 1
    print(f"{ran} calls of {seed - arguments.first} cases on {', '.join(library.supported())}: nothing found")
    return 0 if ran else 1


def run(seed: int) -> bool:
    """One case forward and backward, if the kernels take it; its statistics too."""
    native = backend("native")
    case = make_case(seed, native.capabilities)
    call = case.call()
    if native.unsupported(call):
        return False
    result = native.run(call)
    assert result.lse is not None
    outputs = {"out": call.restore(result.out), "lse": call.restore(result.lse)}
    wanted = {name: x for name, x in outputs.items() if x.requires_grad}
    given = {"out": case.dout, "lse": case.dlse}
    if wanted:
        leaves = list(case.wrt.values())
        torch.autograd.grad(list(wanted.values()), leaves, [given[name] for name in wanted], allow_unused=True)
    with torch.no_grad():
        q, k, v = case.operands.values()
        torch.manual_seed(seed)
        stats = ("entropy", "max", "max_logit", ("topk", 3))
        rg.inspect(q, k, v, **case.arguments, stats=stats, backend="native").weights.stats()
    return True


if __name__ == "__main__":
    sys.exit(main())

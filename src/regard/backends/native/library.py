"""Finding, choosing and loading the compiled kernels: one library for each instruction set."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

import torch

from regard._errors import ArgumentError
from regard.backends.native.abi import CallView
from regard.backends.native.sources import check_build

VARIANTS = ("portable", "avx2", "avx512", "avx512_bf16")
"""From the slowest to the fastest; the position of each is its bit in `regard_supported_variants`."""

CHOICE = "REGARD_NATIVE_ISA"
"""Environment variable that forces a variant; read once, when the kernels are first asked for."""


@cache
def installed() -> dict[str, Path]:
    """The variants that this installation has, with their files."""
    # An editable install keeps compiled files in another folder of the package's path than the sources.
    folders = [Path(folder) for folder in import_module("regard.backends.native").__path__]
    files = [(name, folder / "lib" / f"libregard_{name}.so") for name in VARIANTS for folder in folders]
    return {name: file for name, file in files if file.exists()}


@cache
def supported() -> tuple[str, ...]:
    """The installed variants that this processor can run, from the slowest to the fastest."""
    files = installed()
    if "portable" not in files:
        return ()
    bits = _open(files["portable"]).regard_supported_variants()
    return tuple(v for n, v in enumerate(VARIANTS) if v in files and bits >> n & 1)


def missing() -> str | None:
    """Why there are no kernels here, or None if there are."""
    if supported():
        return None
    return (
        "has no compiled kernels here: none were built when regard was installed (a C++17 compiler was missing, or the "
        "platform is not known). Install a compiler and run pip install --force-reinstall regard"
    )


# What the compiler is told not to trace but to call once; its decorator would import it together with regard.
missing._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def variant() -> str:
    """The variant in use: the fastest on this processor, or the one that `CHOICE` forces.

    Raises:
        ArgumentError: `CHOICE` names no variant, or one that cannot run here.
    """
    forced = os.environ.get(CHOICE)
    if not forced:
        usable = [v for v in supported() if v != "avx512_bf16" or kernels("portable").regard_has_fast_bfloat16()]
        return usable[-1]
    if forced not in VARIANTS:
        raise ArgumentError(f"{CHOICE} must be one of {', '.join(VARIANTS)}: got {forced!r}.")
    if forced not in supported():
        why = "this processor lacks its instructions" if forced in installed() else "it was not built"
        raise ArgumentError(
            f"{CHOICE}={forced} cannot run here: {why}. Usable here: {', '.join(supported()) or 'none'}."
        )
    return forced


def kernels(name: str | None = None) -> ctypes.CDLL:
    """The library of a variant, by default of `variant`."""
    return _open(installed()[name or variant()])


def by_address(name: str) -> Callable[[int], int]:
    """An entry point of `kernels` that takes the address of a call, which costs less than handing over the struct."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    return kind((name, kernels()))


@cache
def parallel() -> int:
    """The address of GOMP_parallel in the OpenMP runtime that torch has loaded; 0 if there is none.

    The kernels run on that runtime, not on one of their own: two pools of threads would fight for the cores.
    """
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except AttributeError:
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class _Threads:
    """How many threads a call may use; one in a forked child, where the parent's pool does not exist."""

    def __init__(self) -> None:
        self.forked = False
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.forked = True

    def __call__(self) -> int:
        return 1 if self.forked else torch.get_num_threads()


threads = _Threads()


@contextmanager
def alone() -> Iterator[None]:
    """Torch's own operators on one thread in a forked child: what they would wait for has stayed with the parent."""
    given = torch.get_num_threads()
    if threads() > 1 or given == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(given)


@cache
def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    check_build(library)
    for name in ("regard_forward", "regard_backward", "regard_statistics"):
        function = getattr(library, name)
        function.argtypes, function.restype = (ctypes.POINTER(CallView),), ctypes.c_int
    for name in ("regard_exp", "regard_exp2", "regard_tanh"):
        function = getattr(library, name)
        function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64), None
    library.regard_supported_variants.restype = ctypes.c_int
    return library

"""Choosing a backend: an ordered list, asked one after another, and a verdict of each that says why or why not."""

from __future__ import annotations

from typing import NamedTuple

from regard._call import Call
from regard._errors import ArgumentError, UnsupportedError, describe
from regard.backends.base import Backend
from regard.backends.blockwise import Blockwise
from regard.backends.flex import Flex
from regard.backends.native import Native
from regard.backends.reference import Reference
from regard.backends.torch import TorchKernels

_BACKENDS: dict[str, Backend] = {one.name: one for one in (Native(), TorchKernels(), Flex(), Blockwise(), Reference())}
"""Every backend by name, in the order in which the chooser asks: the most specialised first, the definition last."""


class Verdict(NamedTuple):
    """What one backend says of a call: reasons against it, and reasons not to pick it by itself."""

    unsupported: tuple[str, ...]
    discouraged: tuple[str, ...]


def backend_names() -> tuple[str, ...]:
    """All backends, in the order in which the chooser asks."""
    return tuple(_BACKENDS)


def backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ArgumentError: no such backend.
    """
    if not isinstance(name, str) or name not in _BACKENDS:
        known = ", ".join(repr(n) for n in _BACKENDS)
        raise ArgumentError(f"backend must be one of {known}, or None to let regard choose: got {describe(name)}.")
    return _BACKENDS[name]


def choose(call: Call, name: str | None = None) -> Backend:
    """The backend asked for, or else the first that can do the call and is not discouraged from it.

    Where every backend that can do the call is discouraged, the first of them does it.

    Raises:
        ArgumentError: no backend of that name.
        UnsupportedError: the backend asked for cannot do the call. It is never replaced by another.
    """
    if name is not None:
        asked = backend(name)
        reasons = asked.unsupported(call)
        if reasons:
            raise UnsupportedError(
                f"backend={name!r} cannot do this call: it {'; '.join(reasons)}. Leave backend=None to let regard "
                "choose, or see regard.explain(...) for what every backend says.",
                reasons,
            )
        return asked
    fallback: Backend | None = None
    for one in _BACKENDS.values():
        if one.unsupported(call):
            continue
        if not one.discouraged(call):
            return one
        fallback = fallback or one
    if fallback is None:
        verdicts = "; ".join(f"{n}: {', '.join(v.unsupported)}" for n, v in judge(call).items())
        raise UnsupportedError(f"no backend can do this call. {verdicts}.")
    return fallback


def judge(call: Call) -> dict[str, Verdict]:
    """What every backend says of the call."""
    verdicts = {}
    for name, one in _BACKENDS.items():
        refused = tuple(one.unsupported(call))
        verdicts[name] = Verdict(refused, () if refused else tuple(one.discouraged(call)))
    return verdicts

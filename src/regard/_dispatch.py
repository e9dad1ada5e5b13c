"""Choosing a backend: an ordered tuple, asked one after another, and a plan that says what was decided and why."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import NamedTuple

from regard._call import Call
from regard._errors import ArgumentError, UnsupportedError, describe
from regard.backends.base import Backend

_ORDER = {
    "torch": "regard.backends.torch:TorchKernels",
    "flex": "regard.backends.flex:Flex",
    "blockwise": "regard.backends.blockwise:Blockwise",
    "reference": "regard.backends.reference:Reference",
}
"""Name to class, in the order in which the chooser asks. A backend is imported when it is first asked."""


class Verdict(NamedTuple):
    """What one backend says of a call: reasons against it, and reasons not to pick it by itself."""

    unsupported: tuple[str, ...]
    discouraged: tuple[str, ...]


def backend_names() -> tuple[str, ...]:
    """All backends, in the order in which the chooser asks."""
    return tuple(_ORDER)


@cache
def backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ArgumentError: no such backend.
    """
    if name not in _ORDER:
        known = ", ".join(repr(n) for n in _ORDER)
        raise ArgumentError(f"backend must be one of {known}, or None to let regard choose: got {describe(name)}.")
    module, attribute = _ORDER[name].split(":")
    made = getattr(import_module(module), attribute)()
    assert isinstance(made, Backend)
    return made


def choose(call: Call, name: str | None = None) -> Backend:
    """The backend asked for, or else the first that can do the call and is not discouraged from it.

    Raises:
        ArgumentError: no backend of that name.
        UnsupportedError: the backend asked for cannot do the call. It is never replaced by another.
    """
    if name is not None:
        asked = backend(name)
        reasons = asked.unsupported(call)
        if reasons:
            listed = "; ".join(reasons)
            raise UnsupportedError(
                f"backend={name!r} cannot do this call: it {listed}. Leave backend=None to let regard choose, or see "
                "regard.explain(...) for what every backend says.",
                reasons,
            )
        return asked
    fallback: Backend | None = None
    for candidate in _ORDER:
        one = backend(candidate)
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
    for name in _ORDER:
        one = backend(name)
        refused = tuple(one.unsupported(call))
        verdicts[name] = Verdict(refused, () if refused else tuple(one.discouraged(call)))
    return verdicts

"""Noticing that something was changed in place."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from regard._call import Call
from regard._errors import StaleError
from regard.masks.base import version


class Versions:
    """The version counters of everything that lazy weights are computed from, as they were at first.

    Inference tensors have no counter, so a change of one under `torch.inference_mode` is not noticed.
    """

    def __init__(self, call: Call, lse: Tensor) -> None:
        self._seen = [(name, tensor, version(tensor)) for name, tensor in _named(call, lse)]

    def check(self) -> None:
        """Raise if a counter has moved.

        Raises:
            StaleError: with the names of what was changed.
        """
        changed = [name for name, tensor, before in self._seen if version(tensor) != before]
        if changed:
            raise StaleError(
                f"these weights are computed when they are read, and {' and '.join(changed)} "
                f"{'was' if len(changed) == 1 else 'were'} changed in place after the call. Read what you need before "
                "the change, or hand inspect(...) a copy of it (tensor.clone())."
            )


def _named(call: Call, lse: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield from (("q", call.q), ("k", call.k), ("lse", lse))
    yield from ((f"a tensor of the mask {call.mask!r}", t) for t in call.mask.tensors())
    yield from ((f"a tensor of {mod!r}", t) for mod in call.score_mods for t in call.tensors_of(mod))
    optional = (("sinks", call.sinks), ("q_positions", call.frame.q_positions), ("k_positions", call.frame.k_positions))
    yield from ((name, t) for name, t in optional if t is not None)

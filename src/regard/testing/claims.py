"""Which backends claim what, so that a test of a feature runs on every backend that offers it."""

from __future__ import annotations

from collections.abc import Callable

from regard._dispatch import backend, backend_names
from regard.backends.base import Capabilities


def claiming(claim: Callable[[Capabilities], bool]) -> list[str]:
    """The names of the backends whose capabilities fulfil ``claim``.

    >>> claiming(lambda can: can.higher_derivatives)
    ['reference']
    """
    return [name for name in backend_names() if claim(backend(name).capabilities)]


def differentiable(can: Capabilities, device: str = "cpu") -> bool:
    """Whether there is a backward pass on ``device``."""
    return not can.gradients or device in can.gradients


def lse_differentiable(can: Capabilities, device: str = "cpu") -> bool:
    """Whether gradients flow through lse on ``device``."""
    return can.lse and can.lse_gradient and differentiable(can, device)

"""The check of every converted module: both are run on the same numbers, and the results compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError

_RELATIVE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def assert_equivalent(what: str, got: Tensor, expected: Tensor) -> None:
    """Raise ArgumentError when ``got`` is further from ``expected`` than rounding explains."""
    if got.shape != expected.shape:
        raise ArgumentError(
            f"{what} are not equivalent: on one input they give shapes {tuple(got.shape)} and {tuple(expected.shape)}."
        )
    error = float((got - expected).abs().max())
    size = float(expected.abs().max())
    if not error <= _RELATIVE[expected.dtype] * size:
        raise ArgumentError(
            f"{what} are not equivalent: on one input they differ by {error:.3g}, where the largest value is "
            f"{size:.3g}. Nothing was changed."
        )


def check_materialised(what: str, tensors: list[Tensor]) -> None:
    """Raise ArgumentError where there are no numbers to compare."""
    if any(t.is_meta for t in tensors):
        raise ArgumentError(
            f"{what} is compared with what it becomes on numbers, but has weights on the meta device. Give them "
            "numbers first, e.g. by loading a state dict with assign=True."
        )


def random_tokens(like: Tensor, length: int, features: int) -> Tensor:
    """The same two random sequences each time, ``(2, length, features)``; torch's generator is left alone."""
    return torch.randn(2, length, features, generator=torch.Generator().manual_seed(0)).to(like)


@contextmanager
def in_eval(module: nn.Module) -> Iterator[None]:
    """Eval mode inside the block, and each part's own mode after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode

"""The errors of regard. Each message states the rule, what was given, and the repair."""

from collections.abc import Iterable, Mapping

import torch


class RegardError(Exception):
    """Base of every error that regard raises on purpose."""


class ShapeError(RegardError, ValueError):
    """Sizes that do not fit together, e.g. ``k`` with 5 tokens beside ``v`` with 6."""


class ArgumentError(RegardError, ValueError):
    """A value outside its domain, e.g. ``dropout_p=1.0`` or a negative window."""


class KindError(RegardError, TypeError):
    """A value of the wrong type or dtype, e.g. a bare tensor as ``mask=``."""


class UnsupportedError(RegardError, ValueError):
    """A backend asked for by name cannot do the call; ``reasons`` holds the sentences."""

    def __init__(self, message: str, reasons: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)


class MissingError(RegardError, ImportError):
    """An optional package that is not installed, e.g. matplotlib for `Mask.plot`."""


class CheckpointError(RegardError, OSError):
    """A checkpoint of `regard.lm` that cannot be written, read or fitted to its model."""


class StaleError(RegardError, ValueError):
    """What was changed after something was made of it: lazy weights' queries or keys, or the kernels' sources."""


class RecordError(RegardError, ValueError):
    """A record on disk that is damaged, of another version or dishonest, or one that cannot be written."""


def describe(value: object) -> str:
    """``value`` in a few words for an error message: dtype, shape and device of a tensor, else its repr."""
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{dtype} {tuple(value.shape)}{device}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def got(values: Mapping[str, object]) -> str:
    """``{"q": tensor}`` as the sentence ``got q float32 (2, 3)``."""
    return "got " + ", ".join(f"{name} {describe(value)}" for name, value in values.items())

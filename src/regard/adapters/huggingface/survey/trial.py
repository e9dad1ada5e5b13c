"""One architecture, built small and run with eager attention and with regard."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor

from regard._errors import RegardError
from regard.adapters.huggingface import attention
from regard.adapters.huggingface.registry import NAME, register
from regard.adapters.huggingface.survey.configs import VARIANTS, Variant, small
from regard.adapters.huggingface.survey.inputs import Inputs, candidates, valid_tokens

RELATIVE = 1e-5
MAX_PARAMETERS = 110_000_000
MAX_SECONDS = 60
Kind = Literal["works", "refused", "not tried"]


@dataclass(frozen=True)
class Verdict:
    """What became of one architecture.

    Attributes:
        architecture: its ``model_type``.
        kind: ``"works"``: eager's numbers; ``"refused"``: an error, or no attention to replace; ``"not tried"``: it
            could not be built small, or could not be run with eager attention on the inputs that are made here.
        reason: a sentence; empty if it works.
        layers: how many calls of attention went through regard.
        off: the largest difference from eager, relative to the largest number.
    """

    architecture: str
    kind: Kind
    reason: str = ""
    layers: int = 0
    off: float = 0.0


class _TooSlow(Exception):
    """The time for one architecture is over."""


def trial(architecture: str) -> Verdict:
    """Build ``architecture`` small, run it with eager attention and with regard, compare the outputs of tokens."""
    register()
    with _quiet(), _limited():
        try:
            model, inputs, want = _first(architecture)
            again = _run(model, inputs, "eager")
        except Exception as error:
            return Verdict(architecture, "not tried", _sentence(error))
        if not bool(want.isfinite().all()) or not torch.equal(want, again):
            return Verdict(architecture, "not tried", "eager attention gives other numbers each time, or no numbers")
        if not model._can_set_attn_implementation():
            return Verdict(architecture, "refused", "has an attention of its own, which transformers cannot replace")
        try:
            with mock.patch.object(attention, "attend", wraps=attention.attend) as attend:
                # transformers holds the function itself, so it is told of the counting one.
                _register_counting(attend)
                got = _run(model, inputs, NAME)
        except RegardError as error:
            return Verdict(architecture, "refused", _sentence(error))
        except Exception as error:
            return Verdict(architecture, "refused", f"transformers raises {_sentence(error)}")
        finally:
            register()
        if attend.call_count == 0:
            return Verdict(architecture, "refused", "no layer of it asks transformers for its attention")
        off = float((got - want).abs().max() / want.abs().max())
        if not off < RELATIVE and not _within_rounding(model, inputs, got, want):
            return Verdict(architecture, "refused", f"differs from eager by {off:.1e}", attend.call_count, off)
        return Verdict(architecture, "works", "", attend.call_count, off)


def architectures() -> list[str]:
    """Every ``model_type`` of the installed transformers that has a base model."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def _register_counting(attend: Any) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, lambda *args, **kwargs: attend(*args, **kwargs))


def _first(architecture: str) -> tuple[Any, Inputs, Tensor]:
    """The first small model that runs with eager attention, on the first inputs that it runs on, and what it gives."""
    first: Exception | None = None
    for sizes in VARIANTS:
        try:
            model = _built(architecture, Variant(*sizes))
        except _TooSlow:
            raise
        except Exception as error:
            first = first or error
            continue
        torch.manual_seed(0)
        for inputs in candidates(model):
            try:
                return model, inputs, _run(model, inputs, "eager")
            except _TooSlow:
                raise
            except Exception as error:
                first = first or error
    raise first or LookupError(f"what goes into it as {model.main_input_name!r} is not known here")


def _built(architecture: str, variant: Variant) -> Any:
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    config = small(CONFIG_MAPPING[architecture], variant)
    model_class = MODEL_MAPPING[type(config)]
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    with torch.device("meta"):
        parameters = sum(p.numel() for p in model_class._from_config(config, attn_implementation="eager").parameters())
    if parameters > MAX_PARAMETERS:
        raise LookupError(f"the smallest that could be made of it has {parameters:,} parameters")
    torch.manual_seed(0)
    config = small(CONFIG_MAPPING[architecture], variant)
    model = model_class._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Random models attend evenly; larger weights make it matter which key a query sees.
                parameter.mul_(4)
    return model


@torch.no_grad()
def _run(model: Any, inputs: Inputs, implementation: str) -> Tensor:
    model.set_attn_implementation(implementation)
    torch.manual_seed(0)
    output = model(**{name: value.clone() for name, value in inputs.items()})
    valid = valid_tokens(inputs)
    found = []
    for value in output.to_tuple() if hasattr(output, "to_tuple") else output:
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1:
            fits = valid is not None and value.shape[:2] == valid.shape
            found.append((value[valid] if fits else value).flatten().double())
    return torch.cat(found)


def _within_rounding(model: Any, inputs: Inputs, got: Tensor, want: Tensor) -> bool:
    """Whether ``got`` is about as near to eager attention in float64 as eager attention itself."""
    precise = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    try:
        exact = _run(model.double(), precise, "eager")
    except Exception:
        return False
    return bool((got - exact).abs().max() < 2 * (want - exact).abs().max())


def _sentence(error: Exception) -> str:
    text = re.sub(r"'?/[\w./-]+'?", "…", " ".join(str(error).split()))
    text = text if len(text) <= 160 else text[:157] + "..."
    return text if isinstance(error, (RegardError, LookupError)) and text else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlow(f"took more than {MAX_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)

"""The token ids that a model was called with, so that a map has words on its axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Side = Literal["encoder", "decoder"]


class Tokenizer(Protocol):
    """What is needed of a tokenizer: the text of ids. Hugging Face's and `regard.lm`'s have it."""

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of ``ids``."""


class TokenIds:
    """Takes down the ids of each call until the first layer says where in which run they belong.

    Args:
        watched: whether calls in this thread are to be taken down.
    """

    def __init__(self, watched: Callable[[], bool]) -> None:
        self._watched = watched
        self._new: dict[Side, Tensor] = {}
        self._runs: dict[Side, list[Tensor | None]] = {"encoder": [], "decoder": []}

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Watch the calls of ``model``, or of its encoder and decoder, inside the block."""
        handles = [
            part.register_forward_pre_hook(self._hook(side), with_kwargs=True) for side, part in _sides(model).items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def settle(self, side: Side, run: int, past: int) -> None:
        """Say that the newest ids of ``side`` belong to run number ``run``, behind its first ``past`` tokens."""
        new = self._new.pop(side, None)
        runs = self._runs[side]
        runs += [None] * (run + 1 - len(runs))
        if new is None:
            return
        before = runs[run]
        if before is None:
            runs[run] = new if past == 0 else None
        elif before.shape[1] >= past and before.shape[0] == new.shape[0]:
            runs[run] = torch.cat([before[:, :past], new], 1)

    def of(self, side: Side, run: int) -> Tensor | None:
        """The ids of a run, int64 ``(B, L)``, or None."""
        runs = self._runs[side]
        return runs[run] if run < len(runs) else None

    def _hook(self, side: Side) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def take(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._watched():
                return
            given = [kwargs.get("input_ids"), *args]
            ids = next(
                (x for x in given if isinstance(x, Tensor) and x.dtype == torch.int64 and x.ndim in (1, 2)), None
            )
            if ids is not None:
                self._new[side] = (ids if ids.ndim == 2 else ids[None]).detach().cpu().clone()

        return take


def words(ids: Tensor, tokenizer: Tokenizer) -> list[list[str]]:
    """The text of each id, a list for each batch entry."""
    known: dict[int, str] = {}
    for one in ids.unique().tolist():
        known[one] = tokenizer.decode([one])
    return [[known[one] for one in row] for row in ids.tolist()]


def _sides(model: nn.Module) -> dict[Side, nn.Module]:
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) is True:
        find: Any = model
        return {"encoder": find.get_encoder(), "decoder": find.get_decoder()}
    return {"decoder": model}

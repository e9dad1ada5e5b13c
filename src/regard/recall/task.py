"""The task: items that carry a key and a value, then a question that names a key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

KEYS, VALUES = 512, 4


@dataclass(frozen=True)
class Questions:
    """Sequences of items, and questions that may come after them, each instead of the others.

    Attributes:
        keys: of the items, all different in a row, int64 ``(B, n)``.
        values: of the items, int64 ``(B, n)``.
        asked: keys that are asked for, int64 ``(B, m)``.
        answers: their values, int64 ``(B, m)``.
    """

    keys: Tensor
    values: Tensor
    asked: Tensor
    answers: Tensor


def ask(batch: int, items: int, draw: torch.Generator, *, questions: int | None = None) -> Questions:
    """``batch`` sequences of ``items`` items, and ``questions`` about different ones of them, at most all.

    With ``questions=None`` there is one question, about the first item: the one at the distance ``items``.
    """
    keys = torch.rand(batch, KEYS, generator=draw).topk(items, dim=1).indices
    values = torch.randint(VALUES, (batch, items), generator=draw)
    which = torch.zeros(batch, 1, dtype=torch.int64)
    if questions is not None:
        which = torch.rand(batch, items, generator=draw).topk(min(questions, items), dim=1).indices
    return Questions(keys, values, keys.gather(1, which), values.gather(1, which))

"""Every number between a module's input and its output, on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from textwrap import indent
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from regard._call import make_call
from regard._dispatch import backend
from regard.masks import Mask
from regard.scores import ScoreModification

_MEANING = {
    "queries": "what each token asks for",
    "keys": "what each token offers to be found by",
    "values": "what each token hands over",
    "scores": "scale · queries keysᵀ, score changes applied, mask not yet",
    "allowed": "the mask, True = may attend",
    "weights": "softmax over the allowed scores of each row",
    "context": "weights · values",
    "output": "what forward returns in eval mode",
}


@dataclass(frozen=True, eq=False, repr=False)
class Steps:
    """What a module computed on the way, exactly as defined and before dropout; prints itself.

    A module of one head gives its fields without the dim ``H``.

    Attributes:
        queries: ``(…, H, Lq, D)``.
        keys: ``(…, Hkv, Lk, D)``.
        values: ``(…, Hkv, Lk, Dv)``.
        scores: ``(…, H, Lq, Lk)``, ``scale · q kᵀ`` after the score changes and before the mask; float32, or float64
            for float64 inputs. Without a score change, ``scores / scale`` are the plain dot products.
        allowed: bool ``(…, H, Lq, Lk)``, True = may attend.
        weights: ``(…, H, Lq, Lk)``, softmax over the allowed scores, in the dtype of ``scores``. A row that may attend
            to nothing is 0.
        context: ``(…, H, Lq, Dv)``, one context vector a token and head.
        output: what the module's forward returns in eval mode.
    """

    PER_HEAD: ClassVar = ("queries", "keys", "values", "scores", "allowed", "weights", "context")

    queries: Tensor
    keys: Tensor
    values: Tensor
    scores: Tensor
    allowed: Tensor
    weights: Tensor
    context: Tensor
    output: Tensor

    def one_head(self) -> Steps:
        """The same of a module of one head: the head's dim left out of all fields but ``output``."""
        return replace(self, **{name: getattr(self, name).squeeze(-3) for name in self.PER_HEAD})

    def __repr__(self) -> str:
        parts = []
        for name, meaning in _MEANING.items():
            value = getattr(self, name).detach().cpu()
            value = value.int() if value.dtype == torch.bool else value.double()
            numbers = np.array2string(value.numpy(), precision=4, suppress_small=True, floatmode="fixed")
            parts += [f"{name} {tuple(value.shape)}: {meaning}", indent(numbers, "    ")]
        return "\n".join(parts)


def dense_steps(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Callable[[Tensor], Tensor],
    *,
    mask: Mask | None = None,
    score_mod: ScoreModification | Sequence[ScoreModification] | None = None,
    scale: float | None = None,
    sinks: Tensor | None = None,
) -> Steps:
    """The steps of one call, from the definition: ``weights = exp(scores - lse)``.

    Args:
        q: ``(…, H, Lq, D)``.
        k: ``(…, Hkv, Lk, D)``.
        v: ``(…, Hkv, Lk, Dv)``.
        output: how the module goes on from the context vectors ``(…, H, Lq, Dv)``.
        mask: as in `regard.attention`, like the rest.
        score_mod: one score change or several.
        scale: factor of the dot products.
        sinks: ``(H,)``.
    """
    call = make_call(q, k, v, mask=mask, score_mod=score_mod, scale=scale, sinks=sinks).with_(wants_lse=True)
    result = backend("reference").run(call)
    assert result.lse is not None
    at = call.frame.everywhere()
    queries, keys = (x.to(call.accumulation_dtype) for x in (call.q, call.k))
    scores = call.scale * (queries @ keys.repeat_interleave(call.group, 1).mT)
    for mod in call.score_mods:
        scores = mod.modify(scores, at)
    allowed = call.mask.allowed(at).expand(scores.shape)
    lse = result.lse[..., None]
    seen = allowed & (lse > -torch.inf)
    # Both sides of the difference are made finite first: an infinity in the branch not taken would give NaN gradients.
    weights = torch.where(seen, torch.exp(torch.where(seen, scores - torch.where(seen, lse, 0), 0)), 0)
    context = call.restore(result.out)
    return Steps(
        queries=call.restore(call.q),
        keys=call.restore(call.k),
        values=call.restore(call.v),
        scores=call.restore(scores),
        allowed=call.restore(allowed),
        weights=call.restore(weights),
        context=context,
        output=output(context),
    )

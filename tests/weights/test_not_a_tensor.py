"""Lazy weights are not taken for a tensor by accident: every such use is refused in words that say what to call."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import regard as rg
from regard._call import make_call

Use = Callable[[Any], object]

USES: list[tuple[str, Use]] = [
    ("have no truth value", bool),
    ("have no truth value", lambda w: w or 1),
    ("are not iterated over", list),
    ("are not iterated over", lambda w: 0.5 in w),
    ("are not iterated over", lambda w: max(w)),
    ("are not a number", float),
    ("are not a number", int),
    ("are not compared", lambda w: w == w),
    ("are not compared", lambda w: w != 0),
    ("are not compared", lambda w: w < 0.5),
    ("are not compared", lambda w: w >= 0.5),
    ("are not compared", lambda w: w > torch.ones(2)),
    ("do no arithmetic", lambda w: w + 1),
    ("do no arithmetic", lambda w: 1 - w),
    ("do no arithmetic", lambda w: -w),
    ("do no arithmetic", lambda w: w @ torch.ones(11, 2)),
    ("do no arithmetic", lambda w: torch.ones(2, 7) @ w),
    ("do no arithmetic", lambda w: torch.ones(2) * w),
    ("do no arithmetic", lambda w: np.ones(2) * w),
    ("do no arithmetic", lambda w: w / np.ones(2)),
    ("do no arithmetic", lambda w: abs(w)),
]


@pytest.mark.parametrize(("what", "use"), USES)
def test_use_as_a_tensor_is_refused(weights: rg.AttentionWeights, what: str, use: Use) -> None:
    with pytest.raises(rg.KindError, match=rf"lazy attention weights {what}, .* \.max\(\), .* \.dense\(\)"):
        use(weights)


def test_repr_shows_shape_and_cost_and_computes_nothing() -> None:
    zero = torch.zeros((), dtype=torch.bfloat16)
    q, k = zero.expand(1, 32, 100_000, 128), zero.expand(1, 8, 100_000, 128)
    weights = rg.AttentionWeights(make_call(q, k, k), torch.zeros(()).expand(1, 32, 100_000))
    shown = "<AttentionWeights (1, 32, 100000, 100000) float32: 1.28 TB if dense, up to 81.9 TFLOP a pass>"
    assert repr(weights) == shown
    assert weights.shape == (1, 32, 100_000, 100_000)
    assert weights.ndim == 4
    assert len(weights) == 1
    assert weights.device == q.device


def test_weights_are_hashable_by_identity(weights: rg.AttentionWeights) -> None:
    assert len({weights: 1, id(weights): 2}) == 2

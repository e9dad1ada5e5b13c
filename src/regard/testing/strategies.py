"""Hypothesis strategies for masks, score changes, positions and sizes.

Needs hypothesis (``pip install regard[testing]``), which is why `regard.testing` imports this module only when it is
asked for.

>>> from hypothesis import given, strategies as st
>>> from regard.testing.strategies import framed_masks
>>> @given(framed_masks())
... def holds_everywhere(case):
...     mask, frame = case
...     assert (~~mask).over(frame).equal(mask.over(frame))
>>> holds_everywhere()
"""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from regard._coordinates import Frame
from regard.masks import Mask
from regard.scores import ScoreModification
from regard.testing.expressions import PRIMITIVES, random_mask, random_positions, random_score_mods

_Strategy = st.SearchStrategy


def masks(
    batch: int = 1, heads: int = 1, q_len: int = 5, k_len: int = 7, *, depth: int = 3, default_positions: bool = True
) -> _Strategy[Mask]:
    """Mask expressions over all primitives that fit a call of these sizes, ``depth`` operators deep at most.

    With ``depth=0`` only primitives. Without ``default_positions`` the masks fit calls with explicit positions.
    """
    frame = Frame(batch, heads, q_len, k_len)
    if not default_positions:
        frame = Frame(batch, heads, q_len, k_len, frame.q_pos, frame.k_pos)
    return _random().map(lambda rng: random_mask(rng, frame, depth))


def primitives(frame: Frame) -> _Strategy[Mask]:
    """Masks without ``&``, ``|`` and ``~`` that fit the call of this frame."""
    return st.tuples(st.sampled_from(PRIMITIVES), _random()).map(lambda drawn: drawn[0](drawn[1], frame))


def score_mods(
    batch: int = 1, heads: int = 1, q_len: int = 5, k_len: int = 7, *, most: int = 3
) -> _Strategy[tuple[ScoreModification, ...]]:
    """Up to ``most`` score changes, in any order, that fit a call of these sizes."""
    frame = Frame(batch, heads, q_len, k_len)
    return _random().map(lambda rng: random_score_mods(rng, frame, most))


@st.composite
def frames(draw: st.DrawFn, *, max_tokens: int = 11, positions: bool = True) -> Frame:
    """Sizes of a call, lengths from 0, and (unless ``positions`` is false) now and then explicit positions."""
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    q_len, k_len = (draw(st.integers(0, max_tokens)) for _ in range(2))
    if not positions or draw(st.booleans()):
        return Frame.of(batch, heads, q_len, k_len)
    rng = draw(_random())
    q_positions, k_positions = (random_positions(rng, n, batch, reach=3) for n in (q_len, k_len))
    return Frame.of(batch, heads, q_len, k_len, q_positions, k_positions)


@st.composite
def framed_masks(
    draw: st.DrawFn, *, depth: int = 3, max_tokens: int = 11, positions: bool = True
) -> tuple[Mask, Frame]:
    """A mask with the sizes and positions of a call that it fits."""
    frame = draw(frames(max_tokens=max_tokens, positions=positions))
    return random_mask(draw(_random()), frame, depth), frame


def _random() -> _Strategy[Random]:
    return st.randoms(use_true_random=False)

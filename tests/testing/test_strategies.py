"""The strategies draw what they promise, and `regard.testing` does without hypothesis until they are asked for."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import find, given, settings
from hypothesis import strategies as st

from regard._coordinates import Frame
from regard.masks import Mask
from regard.scores import ScoreModification
from regard.testing import strategies


@settings(max_examples=60, deadline=None, derandomize=True)
@given(strategies.masks(batch=2, heads=3, q_len=5, k_len=7))
def test_masks_fit_the_sizes(mask: Mask) -> None:
    assert mask.over(Frame.of(2, 3, 5, 7)).shape[-2:] == (5, 7)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(strategies.framed_masks())
def test_framed_masks_fit_their_frame(drawn: tuple[Mask, Frame]) -> None:
    mask, frame = drawn
    assert mask.over(frame).shape[-2:] == (frame.q_len, frame.k_len)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(strategies.score_mods(batch=2, heads=3, q_len=5, k_len=7, most=2))
def test_score_changes_fit_the_sizes(mods: tuple[ScoreModification, ...]) -> None:
    assert len(mods) <= 2
    for mod in mods:
        mod.check(Frame.of(2, 3, 5, 7))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_primitives_are_no_combinations(data: st.DataObject) -> None:
    frame = data.draw(strategies.frames(max_tokens=5))
    assert type(data.draw(strategies.primitives(frame))).__name__ not in ("And", "Or", "Not")


def test_failures_shrink_to_something_readable() -> None:
    found = find(strategies.masks(depth=3), lambda mask: "Causal" in repr(mask), settings=settings(derandomize=True))
    assert repr(found) == "Causal()"


def test_hypothesis_is_not_needed_before() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import regard.testing as t; t.oracle; t.assert_causal"
    subprocess.run([sys.executable, "-c", code], check=True)

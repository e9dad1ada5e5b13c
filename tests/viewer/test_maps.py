"""Maps computed in Python: equal to their dense definitions for every mask and score change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.viewer.test_arithmetic import CASES, COLS, HEADS, ROWS, bins, inspected

import regard as rg
from regard.viewer import maps as module
from regard.viewer.maps import HeadMaps, coarser
from regard.viewer.pyramid import Pyramid
from regard.viewer.subject import subject_of


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that the small matrices of these tests span several of."""
    monkeypatch.setattr(module, "_ROWS", 8)
    monkeypatch.setattr(module, "_COLS", 16)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("hide", [0, 3])
def test_planes_and_weights_are_their_definitions(name: str, hide: int) -> None:
    call = CASES[name]()
    seen = inspected(**call)
    allowed = call.get("mask", rg.Everything()).dense(
        ROWS, COLS, call.get("q_positions"), call.get("k_positions"), batch=2, heads=HEADS
    )
    for head in (0, HEADS - 1):
        maps = HeadMaps(subject_of(seen, entry=1).layers[0], head)
        dense = seen.weights.dense()[1, head].detach().clone()
        visible = allowed.expand(2, HEADS, ROWS, COLS)[1, head].clone()
        if "bias" in name:
            visible &= dense > 0
        if hide:
            dense[:, :hide] = 0
            visible[:, :hide] = False
            total = dense.sum(1, keepdim=True)
            dense = torch.where(total > 0, dense / total, 0)
        got = maps.weights(slice(0, ROWS), slice(0, COLS), hide)
        assert torch.equal(got.isnan(), ~visible)
        torch.testing.assert_close(got.nan_to_num(), dense, atol=5e-6, rtol=1e-4)
        sees = visible.sum(1, keepdim=True)
        uniform = visible / sees.clamp(min=1)
        for zr, zc, r0, c0 in ((0, 0, 0, 0), (2, 2, 4, 8), (4, 1, 16, 0), (1, 5, 0, 0)):
            planes = maps.pool(slice(r0, ROWS), slice(c0, COLS), zr, zc, hide)
            part = (slice(r0, ROWS), slice(c0, COLS))
            wanted = (
                bins(dense[part], zr, zc, "mass"),
                bins(dense[part], zr, zc, "max"),
                bins((dense * sees)[part], zr, zc, "max"),
                bins(uniform[part], zr, zc, "mass"),
            )
            torch.testing.assert_close(planes, torch.stack(wanted), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("up", "over"), [(1, 1), (3, 3), (2, 0), (0, 4)])
def test_pooling_a_map_is_pooling_the_weights(up: int, over: int) -> None:
    seen = inspected(mask=rg.Causal())
    maps = HeadMaps(subject_of(seen).layers[0], 0)
    whole = slice(0, ROWS), slice(0, COLS)
    fine = maps.pool(*whole, 1, 1)
    torch.testing.assert_close(coarser(fine, up, over, 1, ROWS), maps.pool(*whole, 1 + up, 1 + over))


def test_a_pyramid_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = HeadMaps(subject_of(inspected(mask=rg.Causal())).layers[0], 0)
    path = tmp_path / "one.maps"
    pyramid = Pyramid(maps, 0, path)
    pyramid.build(lambda: None)
    again = Pyramid(maps, 0, path)
    assert again.done == 1
    for level in ((0, 0), (2, 2), (3, 1)):
        zr, zc = level
        want = maps.pool(slice(0, ROWS), slice(0, COLS), zr, zc)
        torch.testing.assert_close(again.tile(zr, zc, 0, 0, 256), want)

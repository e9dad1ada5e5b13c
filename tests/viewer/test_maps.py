"""Maps computed in Python: equal to their dense definitions for every mask and score change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.viewer.test_arithmetic import CASES, COLS, HEADS, ROWS, bins, inspected

import regard as rg
from regard.backends.native import library
from regard.viewer import maps as module
from regard.viewer.maps import HeadMaps, coarser
from regard.viewer.pyramid import Pyramid
from regard.viewer.subject import subject_of


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that the small matrices of these tests span several of."""
    monkeypatch.setattr(module, "_ROWS", 8)
    monkeypatch.setattr(module, "_COLS", 16)


@pytest.fixture(params=["compiled", "in torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to pool: by the kernels, and where they cannot."""
    if request.param == "in torch":
        monkeypatch.setattr(HeadMaps, "_box", lambda *_: None)
    return str(request.param)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("hide", [0, 3])
@pytest.mark.usefixtures("way")
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


@pytest.mark.skipif(not library.supported(), reason="no kernels were built here")
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"mask": rg.Causal() & (rg.SlidingWindow(5) | rg.Prefix(3)), "score_mod": rg.Softcap(3.0)},
        {"mask": rg.Causal(), "score_mod": rg.Bias(torch.randn(1, HEADS, ROWS, COLS)), "sinks": torch.zeros(HEADS)},
        {"mask": rg.Document.from_lengths([10, 20, 15]) & rg.Padding(torch.tensor([40, 31]))},
    ],
)
def test_the_kernels_pool_where_they_can(call: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed in torch")

    maps = HeadMaps(subject_of(inspected(**call)).layers[0], 0)
    monkeypatch.setattr(HeadMaps, "_by_column", never)
    maps.pool(slice(0, ROWS), slice(0, COLS), 1, 1, 2)


@pytest.mark.usefixtures("way")
def test_what_is_left_of_a_row_beside_its_sink() -> None:
    """With all but 1e-6 of a row on the hidden key, the rest is summed anew: 1 - w has no digits left."""
    q, k = torch.randn((2, 1, 1, ROWS, 8), generator=torch.Generator().manual_seed(3), dtype=torch.float32).unbind()
    k[..., 0] = 0
    k[:, :, 0], q[..., 0] = torch.tensor([16.0 * 8**0.5, *[0.0] * 7]), 1.0
    seen = rg.inspect(q, k, k, mask=rg.Causal())
    assert seen.weights[0, 0, 5, 0] > 1 - 1e-4
    dense = torch.softmax((q.double() @ k.double().mT / 8**0.5)[0, 0, :, 1:].masked_fill(
        ~torch.ones(ROWS, ROWS - 1, dtype=torch.bool).tril(-1), -torch.inf), -1)  # fmt: skip
    maps = HeadMaps(subject_of(seen).layers[0], 0)
    planes = maps.pool(slice(0, ROWS), slice(0, ROWS), 0, 0, 1)
    torch.testing.assert_close(planes[0, 1:, 1:].double(), dense[1:], atol=1e-6, rtol=1e-4)
    assert planes[0, :, 0].eq(0).all()
    assert planes[0, 0].eq(0).all()


@pytest.mark.parametrize(("rows", "cols", "mask"), [(37, 45, rg.Causal()), (5000, 5000, rg.SlidingWindow(9))])
def test_the_strips_of_a_sweep_are_all_rows_once(rows: int, cols: int, mask: rg.Mask, tmp_path: Path) -> None:
    q, k = torch.randn(1, 1, rows, 4), torch.randn(1, 1, cols, 4)
    pyramid = Pyramid(HeadMaps(subject_of(rg.inspect(q, k, k, mask=mask)).layers[0], 0), 0, tmp_path / "a.maps")
    strips = list(pyramid._strips())
    assert [s.start for s, _ in strips] == [0, *(s.stop for s, _ in strips[:-1])]
    assert strips[-1][0].stop == rows
    assert all(s.start % (1 << pyramid.zr) == 0 for s, _ in strips)
    assert [done for _, done in strips] == sorted({done for _, done in strips})
    assert strips[-1][1] == 1
    assert len(strips) == (1 if rows == 37 else 2)


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

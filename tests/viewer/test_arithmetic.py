"""The page's own arithmetic against Python's, on what the page holds: q and k rounded to half floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.viewer.conftest import visiting
from torch import Tensor

import regard as rg
from regard.viewer import save_html, to_html

ROWS, COLS, HEADS, KV_HEADS, DIM = 37, 45, 4, 2, 16


def halves(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that half floats hold exactly, so that the page computes with the same ones."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 1.5).to(torch.bfloat16).to(dtype)


def positions() -> dict[str, Tensor]:
    return {"q_positions": torch.arange(ROWS) * 2 + 3, "k_positions": torch.arange(COLS).roll(7)}


def table(num_heads: int) -> rg.RelativeBias:
    bias = rg.RelativeBias(num_heads, buckets=16, max_distance=32)
    with torch.no_grad():
        bias.table.copy_(halves(16, num_heads, seed=5))
    return bias


def holes() -> Tensor:
    generator = torch.Generator().manual_seed(9)
    dense = torch.rand((2, HEADS, ROWS, COLS), generator=generator) < 0.6
    dense[:, :, 4] = False
    return dense


def with_infinities() -> Tensor:
    bias = halves(1, HEADS, ROWS, COLS, seed=6)
    bias[0, 1, 3, :20] = -torch.inf
    return bias


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "everything": dict,
    "causal": lambda: {"mask": rg.Causal()},
    "window or prefix": lambda: {"mask": rg.Causal() & (rg.SlidingWindow(5) | rg.Prefix(3))},
    "documents and padding": lambda: {
        "mask": rg.Document.from_lengths([10, 20, 15]) & rg.Padding(torch.tensor([40, 31])),
    },
    "dilated": lambda: {"mask": rg.Dilated(3) & rg.Causal()},
    "a mask for each head": lambda: {"mask": rg.Dense(holes())},
    "softcap and ALiBi": lambda: {
        "mask": rg.Causal(),
        "score_mod": [rg.Softcap(3.0), rg.Alibi.for_heads(HEADS)],
    },
    "relative bias": lambda: {"score_mod": table(HEADS)},
    "relative bias at positions": lambda: {"score_mod": table(HEADS), "mask": rg.Causal(), **positions()},
    "dense bias": lambda: {"score_mod": rg.Bias(with_infinities())},
    "a bias of rows": lambda: {"score_mod": rg.Bias(halves(2, 1, ROWS, 1, seed=8))},
    "sinks": lambda: {"mask": rg.Causal(), "sinks": torch.tensor([0.5, 2.0, -1.0, 0.0])},
    "a function": lambda: {"score_mod": rg.ScoreMod(lambda s, b, h, q, k: s + torch.sin(q - k)), "mask": rg.Causal()},
    "scale": lambda: {"mask": rg.Causal(), "scale": 0.4},
    "chunks": lambda: {"mask": rg.Chunked(8) & rg.Causal()},
    "a rule for a mask": lambda: {"mask": rg.Predicate(lambda b, h, q, k: (q + k + h) % 3 != 0)},
    "everything at once": lambda: {
        "mask": rg.Causal() & rg.SlidingWindow(20),
        "score_mod": [rg.Softcap(4.0), rg.Alibi.for_heads(HEADS), rg.Bias(halves(1, HEADS, 1, COLS, seed=7))],
        "sinks": torch.tensor([0.5, 2.0, -1.0, 0.0]),
        "scale": 0.3,
    },
}


def inspected(dtype: torch.dtype = torch.float32, **keywords: Any) -> rg.Inspection:
    q = halves(2, HEADS, ROWS, DIM, seed=1, dtype=dtype)
    k = halves(2, KV_HEADS, COLS, DIM, seed=2, dtype=dtype)
    return rg.inspect(q, k, k, **keywords)


def fetched(visit: Any, layer: int, head: int, hide: int = 0) -> Tensor:
    """All weights of a head as the page computes them; NaN where it says hidden."""
    flat = visit.viewer(
        "async (v, [layer, head, hide, r, c]) => "
        "Array.from(await v.source.part({record: 0, layer, head}, 0, r, 0, c, hide), (x) => isNaN(x) ? null : x)",
        [layer, head, hide, ROWS, COLS],
    )
    return torch.tensor([math.nan if x is None else x for x in flat]).view(ROWS, COLS)


def tile(visit: Any, layer: int, head: int, zr: int, zc: int, row: int = 0, col: int = 0) -> dict[str, Tensor]:
    found = visit.viewer(
        "async (v, [layer, head, zr, zc, row, col]) => { const p = await v.source.tile({record: 0, layer, head}, "
        "{zr, zc, row, col}, 0, () => true); return {rows: p.rows, cols: p.cols, mass: [...p.mass], "
        "max: [...p.max], lift: [...p.lift], uniform: [...p.uniform]}; }",
        [layer, head, zr, zc, row, col],
    )
    shape = (found["rows"], found["cols"])
    return {name: torch.tensor(found[name]).view(shape) for name in ("mass", "max", "lift", "uniform")}


def bins(x: Tensor, zr: int, zc: int, kind: str) -> Tensor:
    """The definition of a map: bin by bin."""
    rows = []
    for i in range(0, x.shape[0], 1 << zr):
        part = x[i : i + (1 << zr)]
        cells = [part[:, j : j + (1 << zc)] for j in range(0, x.shape[1], 1 << zc)]
        rows.append(torch.stack([c.amax() if kind == "max" else c.sum(1).mean() for c in cells]))
    return torch.stack(rows)


@pytest.fixture(scope="module", params=[0, 1], ids=["first entry", "second entry"])
def page(request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One page whose layers are the cases, of one batch entry; and what Python says of it."""
    seen = [inspected(**make()) for make in CASES.values()]
    path = save_html(seen, tmp_path_factory.mktemp("page") / "cases.html", entry=request.param)
    with visiting(browser, path.as_uri()) as visit:
        visit.entry, visit.seen = request.param, seen
        yield visit


@pytest.mark.parametrize("name", [name for name in CASES if name != "a function"])
def test_every_weight_and_every_map_is_that_of_python(page: Any, name: str) -> None:
    call, layer, entry = CASES[name](), list(CASES).index(name), page.entry
    dense = page.seen[layer].weights.dense()[entry]
    allowed = call.get("mask", rg.Everything()).dense(
        ROWS, COLS, call.get("q_positions"), call.get("k_positions"), batch=2, heads=HEADS
    )
    allowed = allowed.expand(2, HEADS, ROWS, COLS)[entry]
    for head in (0, HEADS - 1):
        want, visible = dense[head], allowed[head]
        got = fetched(page, layer, head)
        # A pair whose score is -inf is as hidden as one that the mask hides.
        hidden = got.isnan()
        assert (hidden >= ~visible).all()
        assert (want[hidden] == 0).all()
        torch.testing.assert_close(got.nan_to_num(), want, atol=2e-6, rtol=2e-5)
        sees = (~hidden).sum(1, keepdim=True)
        uniform = torch.where(hidden, 0.0, 1 / sees.clamp(min=1))
        for zr, zc in ((0, 0), (2, 2), (3, 1)):
            planes = tile(page, layer, head, zr, zc)
            expected = {
                "mass": bins(want, zr, zc, "mass"),
                "max": bins(want, zr, zc, "max"),
                "lift": bins(want * sees, zr, zc, "max"),
                "uniform": bins(uniform, zr, zc, "mass"),
            }
            for plane, value in expected.items():
                torch.testing.assert_close(planes[plane], value, atol=3e-6, rtol=3e-5, msg=plane)
            total = planes["mass"].sum(1)
            assert (total < 1 + 1e-5).all()
            if not sees.eq(0).any() and "sinks" not in call:
                torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("name", ["causal", "sinks", "a mask for each head"])
def test_hiding_the_sink_renormalises_what_is_left(page: Any, name: str) -> None:
    layer = list(CASES).index(name)
    dense = page.seen[layer].weights.dense()[page.entry]
    for hide in (1, 4):
        got = fetched(page, layer, 2, hide)
        left = dense[2].clone()
        left[:, :hide] = 0
        total = left.sum(1, keepdim=True)
        want = torch.where(total > 0, left / total, 0)
        torch.testing.assert_close(got.nan_to_num(), want, atol=1e-5, rtol=1e-4)
        assert got[:, :hide].isnan().all()


def test_a_function_is_baked_and_said_to_be(page: Any) -> None:
    layer = list(CASES).index("a function")
    want = page.seen[layer].weights.dense()[page.entry, 1]
    torch.testing.assert_close(fetched(page, layer, 1).nan_to_num(), want, atol=2e-3, rtol=1e-2)
    page.page.evaluate(f"location.hash = 'at=0.{layer}.1'")
    page.until("document.querySelector('.card').textContent.includes('is a Python function')")


def test_other_dtypes_and_uncompressed_pages(visit: Any) -> None:
    seen = [inspected(d, mask=rg.Causal()) for d in (torch.bfloat16, torch.float16, torch.float64)]
    with visit(to_html(seen, compress=False)) as page:
        for layer, one in enumerate(seen):
            want = one.weights.dense()[0, 1].float()
            torch.testing.assert_close(fetched(page, layer, 1).nan_to_num(), want, atol=2e-6, rtol=2e-5)


def test_sizes_far_from_one_survive_half_floats(visit: Any) -> None:
    q, k = halves(1, 1, ROWS, DIM, seed=1) * 1e7, halves(1, 1, COLS, DIM, seed=2) * 1e-7
    seen = rg.inspect(q, k, k)
    with visit(to_html(seen)) as page:
        torch.testing.assert_close(fetched(page, 0, 0), seen.weights.dense()[0, 0], atol=1e-4, rtol=2e-3)


def test_tiles_beyond_the_first_and_maps_of_many_stripes(visit: Any) -> None:
    """1,100 tokens: more rows than the finest kept map has bins, and more than four tiles a side."""
    q, k = halves(1, 1, 1100, DIM, seed=1), halves(1, 1, 1100, DIM, seed=2)
    seen = rg.inspect(q, k, k, mask=rg.Causal() & rg.SlidingWindow(900))
    want = seen.weights.dense()[0, 0]
    with visit(to_html(seen)) as page:
        for zr, zc, row, col in ((0, 0, 2, 1), (0, 0, 4, 4), (0, 2, 3, 0), (1, 1, 1, 1), (2, 2, 1, 0), (3, 3, 0, 0)):
            planes = tile(page, 0, 0, zr, zc, row, col)
            top, left = (row * 256) << zr, (col * 256) << zc
            part = want[top : top + (256 << zr), left : left + (256 << zc)]
            for kind in ("mass", "max"):
                torch.testing.assert_close(planes[kind], bins(part, zr, zc, kind), atol=3e-6, rtol=1e-4)

"""Each score change against its formula, pair by pair, and against published values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard._coordinates import Frame


def apply(mod: rg.ScoreModification, s: Tensor, frame: Frame) -> Tensor:
    mod.check(frame)
    return mod.modify(s, frame.everywhere()).detach()


FRAMES = [
    Frame.of(2, 3, 5, 7),
    Frame.of(2, 3, 7, 5),
    Frame.of(2, 3, 4, 3, torch.tensor([9, -2, 0, 3]), torch.tensor([[5, 0, 2], [-7, 1, 1]])),
]


@pytest.fixture(params=FRAMES, ids=["more keys", "more queries", "positions"])
def frame(request: pytest.FixtureRequest) -> Frame:
    assert isinstance(request.param, Frame)
    return request.param


@pytest.fixture
def s(frame: Frame) -> Tensor:
    return 3 * torch.randn(frame.batch, frame.heads, frame.q_len, frame.k_len)


def pairs(frame: Frame) -> list[tuple[int, int, int, int, int, int]]:
    """``b, h, i, j`` of every pair and its positions ``q, k``."""
    q, k = (p.expand(frame.batch, -1).tolist() for p in (frame.q_pos, frame.k_pos))
    return [
        (b, h, i, j, q[b][i], k[b][j])
        for b in range(frame.batch)
        for h in range(frame.heads)
        for i in range(frame.q_len)
        for j in range(frame.k_len)
    ]


def test_softcap(s: Tensor, frame: Frame) -> None:
    """``cap tanh(s / cap)``: nearly s when small, never beyond the cap."""
    got = apply(rg.Softcap(2.0), s, frame)
    for b, h, i, j, _, _ in pairs(frame):
        assert float(got[b, h, i, j]) == pytest.approx(2 * math.tanh(float(s[b, h, i, j]) / 2), abs=1e-5)
    assert apply(rg.Softcap(2.0), 1e6 * s.sign(), frame).abs().max() == 2


def test_alibi(s: Tensor, frame: Frame) -> None:
    got = apply(rg.Alibi(torch.tensor([0.5, 0.25, 2.0])), s, frame)
    for b, h, i, j, q, k in pairs(frame):
        want = float(s[b, h, i, j]) - (0.5, 0.25, 2.0)[h] * abs(q - k)
        assert float(got[b, h, i, j]) == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 0, 0), (1, 3, 0, 1), (3, 1, 0), (0, 0), (0,), (1,), (2, 1, 1, 0), ()])
def test_bias_goes_by_row_and_column(s: Tensor, frame: Frame, shape: tuple[int, ...]) -> None:
    """A size written 0 here is the call's."""
    sizes = (frame.batch, frame.heads, frame.q_len, frame.k_len)
    bias = torch.randn([n or size for n, size in zip(shape, sizes[4 - len(shape) :], strict=True)])
    torch.testing.assert_close(apply(rg.Bias(bias), s, frame), s + bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_bias_of_another_dtype_is_added_in_the_dtype_of_the_scores(dtype: torch.dtype) -> None:
    frame, s = Frame.of(1, 1, 2, 3), torch.randn(1, 1, 2, 3)
    bias = torch.randn(2, 3).to(dtype)
    assert torch.equal(apply(rg.Bias(bias), s, frame), s + bias.float())


def test_relative_bias(s: Tensor, frame: Frame) -> None:
    mod = rg.RelativeBias(3, buckets=8, max_distance=16)
    nn.init.normal_(mod.table)
    got = apply(mod, s, frame)
    for b, h, i, j, q, k in pairs(frame):
        want = s[b, h, i, j] + mod.table.detach()[t5_bucket(k - q, 8, 16, both=True), h]
        assert float(got[b, h, i, j]) == pytest.approx(float(want), abs=1e-5)


def t5_bucket(relative: int, buckets: int, max_distance: int, *, both: bool) -> int:
    """Section 2.1 of the T5 paper in whole numbers: bucket edges by comparing powers instead of logarithms."""
    count = buckets // 2 if both else buckets
    base = count if both and relative > 0 else 0
    distance = abs(relative) if both else max(-relative, 0)
    exact = count // 2
    if distance < exact:
        return base + distance
    # exact + n is reached where (distance / exact)^(count - exact) >= (max_distance / exact)^n.
    n = 0
    while n < count - exact - 1 and distance ** (count - exact) * exact ** (n + 1) >= (
        max_distance ** (n + 1) * exact ** (count - exact)
    ):
        n += 1
    return base + exact + n


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 16), (16, 100), (4, 5)])
@pytest.mark.parametrize("both", [True, False])
def test_buckets_are_those_of_t5(buckets: int, max_distance: int, both: bool) -> None:
    """Float32 logarithms may fall on the near side of an edge that is a whole number; nowhere else may they differ."""
    mod = rg.RelativeBias(1, buckets=buckets, max_distance=max_distance, bidirectional=both)
    relative = torch.arange(-300, 301)
    got = mod.bucket(relative).tolist()
    want = [t5_bucket(r, buckets, max_distance, both=both) for r in relative.tolist()]
    off = [r for r, x, y in zip(relative.tolist(), got, want, strict=True) if x != y]
    for r in off:
        neighbour = t5_bucket(r + (1 if r < 0 else -1), buckets, max_distance, both=both)
        assert got[r + 300] == neighbour, r
    assert len(off) <= 2
    assert max(got) == buckets - 1
    assert min(got) == 0


def test_buckets_by_hand() -> None:
    """32 buckets up to 128, both ways: 8 exact to either side, then wider and wider."""
    mod = rg.RelativeBias(1)
    at = torch.tensor([0, -1, -7, -8, -11, -12, -15, -127, -5000, 1, 7, 8, 127, 5000])
    assert mod.bucket(at).tolist() == [0, 1, 7, 8, 8, 9, 9, 15, 15, 17, 23, 24, 31, 31]


def test_the_slopes_of_the_alibi_paper() -> None:
    """Powers of two halve; others take every second slope of the next power, as the paper's code does."""
    torch.testing.assert_close(rg.Alibi.for_heads(8).slopes, 2.0 ** -torch.arange(1.0, 9))
    twelve = [2.0**-n for n in range(1, 9)] + [2.0 ** -(n / 2) for n in (1, 3, 5, 7)]
    torch.testing.assert_close(rg.Alibi.for_heads(12).slopes, torch.tensor(twelve))


def test_a_function_gets_indices_and_positions(s: Tensor, frame: Frame) -> None:
    got = apply(rg.ScoreMod(lambda s, b, h, q, k: s * (1 + h) + 100 * b + 10 * q - k), s, frame)
    for b, h, i, j, q, k in pairs(frame):
        want = float(s[b, h, i, j]) * (1 + h) + 100 * b + 10 * q - k
        assert float(got[b, h, i, j]) == pytest.approx(want, abs=1e-4)


def test_parameters_belong_to_the_module_that_holds_the_score_change() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learned = rg.Bias(nn.Parameter(torch.zeros(3)))
            self.fixed = rg.Bias(torch.zeros(3))
            self.relative = rg.RelativeBias(2)
            self.slopes = rg.Alibi(nn.Parameter(torch.ones(2)))

    holder = Holder()
    assert set(holder.state_dict()) == {"learned.bias", "relative.table", "slopes.slopes"}
    assert {name for name, _ in holder.named_parameters()} == set(holder.state_dict())
    assert holder.to(torch.float64).fixed.bias.dtype == torch.float64


@pytest.mark.parametrize(
    ("mod", "words"),
    [
        (rg.Softcap(30.0), "Softcap(30.0)"),
        (rg.Alibi.for_heads(4), "Alibi(<4 slopes>)"),
        (rg.Bias(torch.zeros(2, 3)), "Bias(<float32 (2, 3)>)"),
        (rg.RelativeBias(2), "RelativeBias(2, buckets=32, max_distance=128)"),
        (rg.ScoreMod(t5_bucket), "ScoreMod(t5_bucket)"),  # type: ignore[arg-type]
    ],
)
def test_score_changes_print_what_they_are(mod: rg.ScoreModification, words: str) -> None:
    assert repr(mod) == words

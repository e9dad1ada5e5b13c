"""The solutions of the exercises, each held to something that it does not compute itself."""

from __future__ import annotations

import math
import runpy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from lessons import render


@cache
def solution(number: int) -> dict[str, Any]:
    (path,) = (render.HERE / "solutions").glob(f"{number:02}_*.py")
    return runpy.run_path(str(path))


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(render.HERE))


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_1_direction_weights() -> None:
    x = torch.randn(7, 5)
    cosines = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)
    close(solution(1)["direction_weights"](x), torch.softmax(cosines, -1))
    close(solution(1)["direction_weights"](3.0 * x), torch.softmax(cosines, -1))


def test_1_context_at() -> None:
    x = torch.randn(7, 5)
    close(solution(1)["context_at"](x, 0.0), x.mean(0).expand(7, 5))
    close(solution(1)["context_at"](x, 1e4), x[(x @ x.T).argmax(1)])
    close(solution(1)["context_at"](x, 1.0), rg.nn.SimpleSelfAttention()(x))


def test_1_attention_by_loops() -> None:
    x = torch.randn(7, 5)
    close(solution(1)["attention_by_loops"](x), rg.nn.SimpleSelfAttention()(x))


def test_2_key_bias_matters() -> None:
    layer = rg.nn.SelfAttentionV2(5, 3, qkv_bias=True)
    kept = {name: value.clone() for name, value in layer.state_dict().items()}
    assert solution(2)["key_bias_matters"](layer, torch.randn(7, 5)) < 1e-5
    assert all(torch.equal(value, kept[name]) for name, value in layer.state_dict().items())


def test_2_merged() -> None:
    v1, x = rg.nn.SelfAttentionV1(5, 3), torch.randn(7, 5)
    close(x @ solution(2)["merged"](v1) @ x.T / math.sqrt(3), v1.steps(x).scores.detach())


def test_2_train() -> None:
    apart, tied = solution(2)["train"](tied=False), solution(2)["train"](tied=True)
    assert apart < 0.01
    assert tied > 20 * apart


def test_3_unit_scale() -> None:
    q, k = 0.5 * torch.randn(40_000, 30), 4.0 * torch.randn(40_000, 30)
    # The deviation of 40,000 numbers is within 2% of the truth.
    assert abs(solution(3)["unit_scale"](30, 0.5, 4.0) * (q * k).sum(-1).std() - 1) < 0.02


def test_3_growth() -> None:
    assert abs(solution(3)["growth"](alike=False) - 0.5) < 0.03
    assert abs(solution(3)["growth"](alike=True) - 1) < 0.03


def test_3_scale_for() -> None:
    q, k = torch.randn(40, 16), torch.randn(30, 16)
    w = torch.softmax(solution(3)["scale_for"](q, k, 7.0) * q @ k.T, -1)
    assert abs(float(-(w * w.log()).sum(-1).mean()) - math.log(7)) < 1e-3


def test_4_influence() -> None:
    x = torch.randn(7, 5)
    causal = solution(4)["influence"](rg.nn.CausalAttention(5, 3, context_length=7, dropout=0.0), x)
    assert torch.equal(causal > 0, torch.ones(7, 7).tril().bool())
    assert (solution(4)["influence"](rg.nn.SelfAttentionV2(5, 3), x) > 0).all()


def test_4_masks() -> None:
    q, k = torch.arange(9)[:, None], torch.arange(9)[None]
    wanted = {
        "window": (k <= q) & (k >= q - 3),
        "prompt": (k <= q) | (k < 2),
        "packed": (k <= q) & ((k >= 4) == (q >= 4)),
    }
    for name, allowed in wanted.items():
        assert torch.equal(solution(4)[name]().dense(9, 9)[0, 0], allowed), name


def test_4_mended_weights() -> None:
    scores = torch.randn(7, 7)
    weights = solution(4)["mended_weights"](scores)
    scores[-1, -1] += 5  # the future of all rows but the last
    close(solution(4)["mended_weights"](scores)[:-1], weights[:-1])
    close(weights.sum(-1), torch.ones(7))
    assert weights[-1].max() / weights[-1].min() <= math.e


def test_5_dropout() -> None:
    x = torch.randn(5, 7)
    assert torch.equal(solution(5)["dropout"](x, 0.0), x)
    assert torch.equal(solution(5)["dropout"](x, 1.0), torch.zeros(5, 7))
    many = solution(5)["dropout"](torch.ones(100_000), 0.3)
    close(many.unique(), torch.tensor([0, 1 / 0.7]))
    # Five standard deviations of the mean of 100,000 draws with variance p / (1 - p).
    assert abs(many.mean() - 1) < 5 * math.sqrt(0.3 / 0.7 / 100_000)


def test_5_variance() -> None:
    w, v = torch.softmax(torch.randn(6), 0), torch.randn(6, 4)
    drawn = torch.stack([torch.nn.functional.dropout(w, 0.3) @ v for _ in range(20_000)]).var(0)
    # The variance of 20,000 draws is known to about 1%, these here to 4 times as much.
    torch.testing.assert_close(solution(5)["variance"](w, v, 0.3), drawn, rtol=0.05, atol=0)


def test_5_kept() -> None:
    q, k, v = torch.randn(3, 2, 7, 4)
    kept = solution(5)["kept"](q, k, 0.4, seed=11)
    torch.manual_seed(11)
    got = rg.attention(q, k, v, dropout_p=0.4, backend="reference")
    close(got, (torch.softmax(q @ k.mT / 2, -1) * kept / 0.6) @ v)
    assert 0.4 < kept.float().mean() < 0.8


def test_6_split_and_merge_heads() -> None:
    x = torch.randn(2, 5, 12)
    split = solution(6)["split_heads"](x, 3)
    close(split, torch.stack(x.chunk(3, dim=-1), dim=1))
    close(solution(6)["merge_heads"](split), x)


def test_6_reorder() -> None:
    module, x = rg.nn.MultiHeadAttention(6, 12, 8, 0.0, num_heads=3), torch.randn(2, 5, 6)
    moved = solution(6)["reorder"](module, [2, 0, 1])
    close(moved(x), module(x))
    close(moved.steps(x).weights, module.steps(x).weights[:, [2, 0, 1]])


def test_6_expanded() -> None:
    module, x = rg.nn.MultiHeadAttention(6, 12, 8, 0.0, num_heads=6, num_kv_heads=2), torch.randn(2, 5, 6)
    full = solution(6)["expanded"](module)
    assert full.num_kv_heads == 6
    close(full(x), module(x))


@pytest.mark.parametrize("block", [1, 4, 11])
def test_7_masked_forward(block: int) -> None:
    q, k, v, allowed = torch.randn(7, 5), torch.randn(11, 5), torch.randn(11, 3), torch.rand(7, 11) < 0.4
    allowed[2] = False
    out, lse = solution(7)["masked_forward"](q, k, v, allowed, block)
    wanted = rg.inspect(q, k, v, mask=rg.Dense(allowed), backend="reference")
    close(out, wanted.out)
    close(lse, wanted.lse)
    assert lse[2] == -torch.inf


def test_7_merge() -> None:
    q, k, v = torch.randn(7, 5), torch.randn(11, 5), torch.randn(11, 3)
    parts = [(seen.out, seen.lse) for seen in (rg.inspect(q, k[i::3], v[i::3]) for i in range(3))]
    out, lse = solution(7)["merge"](parts)
    wanted = rg.inspect(q, k, v, backend="reference")
    close(out, wanted.out)
    close(lse, wanted.lse)


def test_7_causal_blocks() -> None:
    for n in (1, 2, 7):
        some = torch.ones(4 * n, 4 * n).tril().unfold(0, 4, 4).unfold(1, 4, 4)
        needed, masked = (some.amax((2, 3)) > 0).sum(), (some.amax((2, 3)) > some.amin((2, 3))).sum()
        assert solution(7)["causal_blocks"](n) == (int(needed), int(masked))


def test_8_turns() -> None:
    rope = rg.nn.RotaryEmbedding(8)
    radians = 50 * rope.frequencies(torch.tensor([50]))
    torch.testing.assert_close(solution(8)["turns"](8, 50), radians / (2 * math.pi))


def test_8_near_and_first() -> None:
    q, k = torch.arange(9)[:, None], torch.arange(9)[None]
    wanted = (k <= q) & ((q - k < 4) | (k == 0))
    assert torch.equal(solution(8)["near_and_first"](4).dense(9, 9)[0, 0], wanted)


def test_8_mean_distance() -> None:
    q, k = torch.randn(2, 2, 3, 37, 5)
    weights = rg.inspect(q, k, k, mask=rg.Causal()).weights
    away = torch.arange(37)[:, None] - torch.arange(37)
    wanted = (weights.dense() * away).sum(-1).mean(-1)
    torch.testing.assert_close(solution(8)["mean_distance"](weights, rows=8), wanted)

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

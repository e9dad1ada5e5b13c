"""A plan says what a call will do before it does it: held against the call itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard._call import Call
from regard._dispatch import backend, backend_names
from regard.backends.base import Result

BATCH, HEADS, KV_HEADS, Q_LEN, K_LEN, WIDTH, VALUE_WIDTH = 2, 4, 2, 131, 149, 8, 5


def operands(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    q = torch.randn(BATCH, HEADS, Q_LEN, WIDTH, dtype=dtype)
    k = torch.randn(BATCH, KV_HEADS, K_LEN, WIDTH, dtype=dtype)
    v = torch.randn(BATCH, KV_HEADS, K_LEN, VALUE_WIDTH, dtype=dtype)
    return q, k, v


CALLS: list[dict[str, Any]] = [
    {},
    {"mask": rg.Causal()},
    {"mask": rg.Causal() & rg.SlidingWindow(7), "score_mod": [rg.Softcap(3.0), rg.Alibi.for_heads(HEADS)]},
    {"mask": rg.Padding(torch.tensor([0, 97])), "sinks": torch.zeros(HEADS)},
    {"mask": rg.Document(torch.arange(K_LEN) // 40), "dropout_p": 0.25},
    {"mask": rg.Dense(torch.rand(HEADS, Q_LEN, K_LEN, generator=torch.Generator().manual_seed(0)) > 0.7)},
    {"mask": rg.Predicate(lambda b, h, q, k: (q + k + b) % 3 == 0)},
    {"mask": rg.Causal(), "q_positions": torch.arange(Q_LEN).flip(0), "k_positions": torch.arange(K_LEN)},
    {"mask": rg.Nothing(), "backend": "reference"},
]


@pytest.mark.parametrize("arguments", CALLS, ids=repr)
class TestPlanAndCall:
    def test_the_backend_is_the_one_that_runs(self, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
        ran = []
        for name in backend_names():
            kind = type(backend(name))

            def run(self: Any, call: Call, real: Any = kind.run) -> Result:
                ran.append(self.name)
                result: Result = real(self, call)
                return result

            monkeypatch.setattr(kind, "run", run)
            monkeypatch.setattr(kind, "ready", lambda self, call: None)
        plan = rg.explain(*operands(), **arguments)
        assert ran == []
        rg.attention(*operands(), **arguments)
        assert ran == [plan.backend]

    def test_counts(self, arguments: dict[str, Any]) -> None:
        plan = rg.explain(*operands(), **arguments)
        where = {name: arguments.get(name) for name in ("q_positions", "k_positions")}
        mask = arguments.get("mask", rg.Everything())
        visible = mask.dense(Q_LEN, K_LEN, **where, batch=BATCH, heads=HEADS).expand(BATCH, HEADS, Q_LEN, K_LEN)
        assert plan.pairs == visible.numel()
        assert plan.visible_pairs == int(visible.sum())
        assert plan.visible_share == plan.visible_pairs / plan.pairs
        assert plan.flops_forward == 2 * plan.visible_pairs * (WIDTH + VALUE_WIDTH)
        assert plan.flops_backward == 2 * plan.visible_pairs * (3 * WIDTH + 2 * VALUE_WIDTH)
        edges = (0, -K_LEN % 64, 0, -Q_LEN % 64)
        some = torch.nn.functional.pad(visible, edges, value=False)
        every = torch.nn.functional.pad(visible, edges, value=True)
        some, every = (x.unflatten(3, (-1, 64)).unflatten(2, (-1, 64)).movedim(4, 3).flatten(4) for x in (some, every))
        full, skipped = int(every.all(-1).sum()), int((~some.any(-1)).sum())
        assert plan.blocks is not None
        assert (plan.blocks.full, plan.blocks.skipped) == (full, skipped)
        assert plan.blocks.partial == some[..., 0].numel() - full - skipped

    def test_draws_no_random_number_and_changes_nothing(self, arguments: dict[str, Any]) -> None:
        q, k, v = operands()
        copies = [x.clone() for x in (q, k, v)]
        before = torch.get_rng_state()
        rg.explain(q, k, v, **arguments)
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(x, y) for x, y in zip((q, k, v), copies, strict=True))

    def test_says_why_no_other(self, arguments: dict[str, Any]) -> None:
        plan = rg.explain(*operands(), **arguments)
        assert tuple(plan.verdicts) == backend_names()
        for name in backend_names():
            sentence = plan.why_not(name)
            assert bool(sentence) == (name != plan.backend)
            assert sentence in str(plan)


class TestPlan:
    def test_a_refused_name_is_explained_instead_of_raised(self) -> None:
        plan = rg.explain(*operands(), dropout_p=0.5, sinks=torch.zeros(HEADS), backend="torch")
        assert plan.backend is None
        assert plan.asked == "torch"
        assert len(plan.verdicts["torch"].unsupported) == 2
        assert "none: torch cannot: it takes no sinks" in str(plan)
        assert plan.why_not("blockwise") == "could, but backend='torch' was asked for."
        assert plan.extra_bytes is None

    @pytest.mark.usefixtures("without_kernels")
    def test_reads_as_a_table(self) -> None:
        q, k, v = operands()
        plan = rg.explain(q, k, v, mask=rg.Causal() & rg.SlidingWindow(7), score_mod=rg.Softcap(3.0))
        assert str(plan).splitlines() == [
            "call         q (2, 4, 131, 8) · k (2, 2, 149, 8) · v (2, 2, 149, 5) float32 on cpu",
            "mask         Causal() & SlidingWindow(7, 0)",
            "score change Softcap(3.0)",
            "visible      5.369 % of 156,152 pairs",
            "blocks       0 full, 40 partial, 32 skipped, of 64 x 64",
            "backend      blockwise",
            "  native     cannot: it has no compiled kernels here.",
            "  torch      cannot: it takes no score changes, and the call has Softcap(3.0).",
            "  flex       could, but holds all Lq x Lk scores at once on cpu, where it is not compiled.",
            "  reference  could, but holds all Lq x Lk scores at once.",
            "compute      218 kFLOP forward, 570 kFLOP backward",
            f"memory       {plan._memory()}",
        ]
        assert repr(plan) == str(plan)

    def test_in_a_notebook(self) -> None:
        page = rg.explain(*operands(), mask=rg.Predicate(lambda b, h, q, k: k < q))._repr_html_()
        assert page.count("<tr>") == page.count("</tr>") == 11
        assert "&lt;lambda&gt;" in page

    def test_bytes(self) -> None:
        plan = rg.explain(*operands(torch.float64), backend="reference")
        floats = BATCH * (HEADS * Q_LEN * (WIDTH + VALUE_WIDTH) + KV_HEADS * K_LEN * (WIDTH + VALUE_WIDTH))
        assert plan.operand_bytes == 8 * floats
        assert plan.extra_bytes == 2 * 8 * BATCH * HEADS * Q_LEN * K_LEN

    def test_is_a_value(self) -> None:
        plan = rg.explain(*operands())
        with pytest.raises(dataclasses.FrozenInstanceError):
            plan.backend = "reference"  # type: ignore[misc]  # on purpose

    @pytest.mark.usefixtures("without_kernels")
    def test_a_million_tokens_cost_nothing_to_plan(self) -> None:
        q, k, v = torch.empty(3, 1, 1_000_000, 4).unbind()
        plan = rg.explain(q, k, v, mask=rg.Causal() & rg.SlidingWindow(255))
        assert plan.visible_pairs == 256 * 1_000_000 - 255 * 256 // 2
        assert plan.backend == "blockwise"

    def test_what_would_take_too_long_to_count_is_not_counted(self) -> None:
        q, k, v = torch.empty(3, 1, 100_000, 4).unbind()
        plan = rg.explain(q, k, v, mask=rg.Predicate(lambda b, h, q, k: k < q))
        assert (plan.visible_pairs, plan.visible_share, plan.blocks) == (None, None, None)
        assert (plan.flops_forward, plan.flops_backward) == (None, None)
        assert "not counted: the mask has no closed form for 10,000,000,000 pairs" in str(plan)
        assert "compute      unknown" in str(plan)

    def test_nothing_to_attend_to(self) -> None:
        q, k, v = operands()
        plan = rg.explain(q[:, :, :0], k, v)
        assert (plan.pairs, plan.visible_pairs, plan.visible_share) == (0, 0, 0.0)

    def test_bad_arguments_raise_as_in_a_call(self) -> None:
        q, k, v = operands()
        with pytest.raises(rg.ShapeError, match="k and v must have the same number of tokens"):
            rg.explain(q, k, v[:, :, 1:])
        with pytest.raises(rg.ArgumentError, match="dropout_p must be"):
            rg.explain(q, k, v, dropout_p=1.0)
        with pytest.raises(rg.ArgumentError, match="backend must be one of"):
            rg.explain(q, k, v, backend="fast")

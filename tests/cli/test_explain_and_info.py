"""``regard explain`` and ``regard info`` say what the library says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import regard as rg
from regard._dispatch import backend, backend_names
from regard.backends.native import library

Run = Callable[..., Any]


def test_explain_prints_the_plan_of_these_sizes(run: Run) -> None:
    status, out, _ = run(
        "explain",
        *("--batch", "2", "--heads", "6", "--kv-heads", "3", "--q-len", "70", "--k-len", "131", "--dim", "16"),
        *("--dtype", "bfloat16", "--mask", "Causal() & SlidingWindow(9)", "--softcap", "30", "--grad"),
    )
    q = torch.zeros(2, 6, 70, 16, dtype=torch.bfloat16, requires_grad=True)
    k = torch.zeros(2, 3, 131, 16, dtype=torch.bfloat16, requires_grad=True)
    plan = rg.explain(q, k, k, mask=rg.Causal() & rg.SlidingWindow(9), score_mod=rg.Softcap(30.0))
    assert status == 0
    assert out == f"{plan}\n"


def test_explain_tells_why_a_backend_asked_for_refuses(run: Run) -> None:
    status, out, _ = run("explain", "--q-len", "64", "--dropout", "0.1", "--backend", "torch")
    assert status == 0
    assert "none: torch cannot: " in out
    assert "dropout" in out


def test_explain_touches_no_memory(run: Run) -> None:
    status, out, _ = run("explain", "--q-len", "0")
    assert status == 0
    assert "of 0 pairs" in out


def test_info_tells_of_every_backend(run: Run) -> None:
    status, out, _ = run("info", width=100)
    assert status == 0
    assert f"torch     {torch.__version__}" in out
    for name in backend_names():
        assert f"✓ {name}" in out or f"✗ {name}" in out
        assert backend(name).summary in out


def test_info_tells_why_a_backend_is_not_usable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backend("flex")), "missing", lambda self: "needs a compiler")
    _, out, _ = run("info")
    assert "✗ flex" in out
    assert "does not work here: it needs a compiler" in out


@pytest.mark.skipif(not library.supported(), reason="no kernels were built here")
def test_info_tells_which_kernels_are_in_use_and_that_none_can_be(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "variant", lambda: "portable")
    _, out, _ = run("info")
    assert f"works here: portable of {', '.join(library.supported())}" in out

    def refuse() -> str:
        raise rg.ArgumentError("REGARD_NATIVE_ISA=avx512 cannot run here.")

    monkeypatch.setattr(library, "variant", refuse)
    _, out, _ = run("info")
    assert "✗ native" in out
    assert "does not work here: it stops at every call: REGARD_NATIVE_ISA=avx512 cannot run here." in out

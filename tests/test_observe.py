"""Watching modules attend: who is told, of what, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard._inspect import Inspection
from regard._observe import look, observing


class Notebook:
    """An observer that writes down what it is told."""

    def __init__(self, wanted: Callable[[nn.Module], bool] = lambda module: True) -> None:
        self.wanted = wanted
        self.seen: list[tuple[nn.Module, Inspection, Tensor]] = []

    def wants(self, module: nn.Module) -> bool:
        return self.wanted(module)

    def take(self, module: nn.Module, seen: Inspection, v: Tensor) -> None:
        self.seen.append((module, seen, v))


def tokens() -> Tensor:
    return torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))


RUNGS: list[nn.Module] = [
    rg.nn.SimpleSelfAttention(),
    rg.nn.SelfAttentionV1(8, 4),
    rg.nn.SelfAttentionV2(8, 4),
    rg.nn.CausalAttention(8, 4, 6, 0.0),
    rg.nn.MultiHeadAttention(8, 8, 6, 0.0, 4, num_kv_heads=2, sinks=True, score_mod=rg.Softcap(5.0)),
]


@pytest.mark.parametrize("module", RUNGS, ids=lambda module: type(module).__name__)
def test_every_rung_tells_what_it_computed(module: rg.nn.MultiHeadAttention) -> None:
    notebook, x = Notebook(), tokens()
    unwatched = module(x)
    with observing(notebook):
        watched = module(x)
    torch.testing.assert_close(watched, unwatched)
    [(who, seen, v)] = notebook.seen
    assert who is module
    out = seen.weights.dense() @ v.repeat_interleave(seen.weights.shape[1] // v.shape[1], 1)
    torch.testing.assert_close(out, seen.out)
    torch.testing.assert_close(module.steps(x).weights.reshape(seen.weights.shape), seen.weights.dense())


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_swapped_module_of_torch_tells(need_weights: bool) -> None:
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    ours, x, notebook = rg.adapters.torch_mha.from_torch(theirs), tokens(), Notebook()
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    with observing(notebook):
        out, _ = ours(x, x, x, need_weights=need_weights)
    torch.testing.assert_close(out, expected)
    [(who, seen, _)] = notebook.seen
    assert who is ours
    torch.testing.assert_close(seen.weights.dense(), weights)


def test_nobody_is_told_after_the_block_nor_of_what_it_does_not_want() -> None:
    first, second, x = rg.nn.SelfAttentionV2(8, 4), rg.nn.SelfAttentionV2(8, 4), tokens()
    notebook = Notebook(lambda module: module is second)
    with observing(notebook):
        first(x)
        second(x)
    second(x)
    assert [who for who, _, _ in notebook.seen] == [second]


def test_an_exception_ends_the_watch() -> None:
    notebook, module = Notebook(), rg.nn.SelfAttentionV2(8, 4)
    with pytest.raises(ZeroDivisionError), observing(notebook):
        raise ZeroDivisionError
    module(tokens())
    assert not notebook.seen


def test_all_who_watch_are_told() -> None:
    outer, inner, module = Notebook(), Notebook(), rg.nn.SelfAttentionV2(8, 4)
    with observing(outer):
        with observing(inner):
            module(tokens())
        module(tokens())
    assert (len(outer.seen), len(inner.seen)) == (2, 1)


def test_other_threads_are_not_watched() -> None:
    notebook, module = Notebook(), rg.nn.SelfAttentionV2(8, 4)
    thread = threading.Thread(target=module, args=(tokens(),))
    with observing(notebook):
        thread.start()
        thread.join()
    assert not notebook.seen


def test_look_gives_lazy_weights_with_and_without_watchers() -> None:
    notebook, module, (q, k, v) = Notebook(), nn.Identity(), torch.randn(3, 1, 2, 5, 4).unbind()
    seen = look(module, q, k, v, mask=rg.Causal())
    with observing(notebook):
        look(module, q, k, v, mask=rg.Causal())
    [(who, told, _)] = notebook.seen
    assert who is module
    torch.testing.assert_close(told.weights.dense(), seen.weights.dense())


def test_what_a_compiler_traces_is_not_watched() -> None:
    notebook, module, x = Notebook(), rg.nn.SelfAttentionV2(8, 4), tokens()
    compiled = torch.compile(module, backend="eager")
    with observing(notebook):
        compiled(x)
    assert not notebook.seen

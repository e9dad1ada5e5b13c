"""`torch.compile(fullgraph=True)` traces attention end to end, forward and backward, and gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.backends.native import library

needs_kernels = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")
LENGTH = 13
IDS = torch.arange(LENGTH) // 5
TABLE = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)) > 0.3

MASKS: dict[str, Callable[[], rg.Mask | None]] = {
    "none": lambda: None,
    "causal": rg.Causal,
    "padding": lambda: rg.Padding(torch.tensor([3, LENGTH])),
    "valid": lambda: rg.Padding.from_valid(TABLE[:2]),
    "document": lambda: rg.Document(IDS),
    "dense": lambda: rg.Dense(TABLE),
    "and": lambda: rg.Causal() & rg.Document(IDS) & rg.SlidingWindow(4),
    "or": lambda: rg.Causal() | rg.Prefix(3),
    "chunks": lambda: rg.Dilated(2) & rg.Chunked(5),
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def operands(length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    q = torch.randn(2, 4, length, 8, requires_grad=True)
    k, v = (torch.randn(2, 2, length, width, requires_grad=True) for width in (8, 6))
    return q, k, v


def outcome(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    out = attend(q, k, v)
    return (out, *torch.autograd.grad(out.square().sum(), (q, k, v)))


def assert_same(compiled: Callable[..., Tensor], attend: Callable[..., Tensor], *tensors: Tensor) -> None:
    for found, right in zip(outcome(compiled, *tensors), outcome(attend, *tensors), strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("make", MASKS.values(), ids=MASKS)
class TestFullGraph:
    @pytest.mark.parametrize("backend", ["native", "torch", "reference"])
    def test_with_a_mask_from_outside(self, make: Callable[[], rg.Mask | None], backend: str) -> None:
        if backend == "native" and library.missing():
            pytest.skip("no kernels were built here")
        mask = make()

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return rg.attention(q, k, v, mask=mask, backend=backend)

        assert_same(torch.compile(attend, fullgraph=True, backend="aot_eager"), attend, *operands())

    def test_with_a_mask_made_inside(self, make: Callable[[], rg.Mask | None]) -> None:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return rg.attention(q, k, v, mask=make())

        assert_same(torch.compile(attend, fullgraph=True, backend="aot_eager"), attend, *operands())


class Counter:
    """A compiler that counts the graphs it is handed."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


class TestRecompiling:
    @pytest.mark.parametrize("mask", [None, rg.Causal(), rg.SlidingWindow(3)], ids=repr)
    def test_one_graph_serves_all_lengths(self, mask: rg.Mask | None) -> None:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return rg.attention(q, k, v, mask=mask)

        counter = Counter()
        compiled = torch.compile(attend, fullgraph=True, backend=counter)
        for length in (13, 17, 29, 601):
            tensors = operands(length)
            for x in tensors:
                torch._dynamo.mark_dynamic(x, 2)
            assert_same(compiled, attend, *tensors)
        assert counter.graphs == 1

    def test_one_graph_serves_all_documents(self) -> None:
        def attend(q: Tensor, k: Tensor, v: Tensor, ids: Tensor) -> Tensor:
            return rg.attention(q, k, v, mask=rg.Causal() & rg.Document(ids))

        counter = Counter()
        compiled = torch.compile(attend, fullgraph=True, backend=counter)
        q, k, v = operands()
        for size in (2, 3, 5):
            ids = torch.arange(LENGTH) // size
            torch.testing.assert_close(compiled(q, k, v, ids), attend(q, k, v, ids))
        assert counter.graphs == 1

    @needs_kernels
    def test_one_graph_serves_every_mask_object_of_a_structure(self) -> None:
        def attend(q: Tensor, k: Tensor, v: Tensor, mask: rg.Mask) -> Tensor:
            return rg.attention(q, k, v, mask=mask, backend="native")

        counter = Counter()
        compiled = torch.compile(attend, fullgraph=True, backend=counter)
        q, k, v = operands()
        for size in (2, 3, 5):
            mask = rg.Causal() & rg.Document(torch.arange(LENGTH) // size) & rg.Padding(torch.tensor([size, LENGTH]))
            torch.testing.assert_close(compiled(q, k, v, mask), attend(q, k, v, mask))
        assert counter.graphs == 1


@needs_kernels
@pytest.mark.parametrize("made_inside", [False, True])
def test_score_changes_sinks_and_dropout_are_one_graph(*, made_inside: bool) -> None:
    bias = torch.randn(4, LENGTH, LENGTH, requires_grad=True)
    sinks, table = torch.randn(4, requires_grad=True), rg.RelativeBias(4)
    torch.nn.init.normal_(table.table)
    held = [rg.Softcap(3.0), rg.Bias(bias), rg.Alibi.for_heads(4), table]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mods = [rg.Softcap(3.0), rg.Bias(bias), rg.Alibi.for_heads(4), table] if made_inside else held
        return rg.attention(2 * q, k, v, mask=rg.Causal(), score_mod=mods, sinks=sinks, dropout_p=0.3)

    q, k, v = operands()
    found = []
    for way in (torch.compile(attend, fullgraph=True, backend="aot_eager"), attend):
        torch.manual_seed(5)
        out = way(q, k, v)
        found.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v, bias, sinks, table.table))))
    torch.testing.assert_close(*found)


# Importing inductor uses a decorator that torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_generated_code_agrees() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rg.attention(2 * q, k, v, mask=rg.Causal() & rg.Document(IDS)) + 1

    assert_same(torch.compile(attend, fullgraph=True), attend, *operands())


def halved(s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return s / 2


# Tracing behind a break, torch asks an inner tensor for its gradient, and warns itself of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_what_no_graph_can_hold_breaks_it_and_still_agrees() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rg.attention(2 * q, k, v, mask=rg.Causal(), score_mod=rg.ScoreMod(halved)) + 1

    assert_same(torch.compile(attend, backend="aot_eager"), attend, *operands())


def test_a_function_of_scores_is_one_graph_with_the_reference() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mod = rg.ScoreMod(halved)
        return rg.attention(2 * q, k, v, mask=rg.Causal(), score_mod=mod, backend="reference") + 1

    assert_same(torch.compile(attend, fullgraph=True, backend="aot_eager"), attend, *operands())


def test_autocast_inside_a_graph() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return rg.attention(q, k, v, mask=rg.Causal())

    q, k, v = operands()
    found = torch.compile(attend, fullgraph=True, backend="aot_eager")(q, k, v)
    assert found.dtype == torch.bfloat16
    # Inside the graph another backend may do it, which rounds elsewhere.
    torch.testing.assert_close(found, attend(q, k, v), atol=2**-7, rtol=2**-7)


def test_a_decoding_step() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rg.attention(q[:, :, -1:], k, v, mask=rg.Causal())

    assert_same(torch.compile(attend, fullgraph=True, backend="aot_eager"), attend, *operands())


def test_explicit_positions_in_a_graph() -> None:
    positions = torch.randperm(LENGTH)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rg.attention(q, k, v, mask=rg.Causal(), q_positions=positions, k_positions=positions)

    assert_same(torch.compile(attend, fullgraph=True, backend="aot_eager"), attend, *operands())

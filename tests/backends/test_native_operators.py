"""The native kernels as operators of torch: rightly registered, the numbers of eager calls, checks of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.backends.native import library, spelling

pytestmark = pytest.mark.skipif(library.missing() is not None, reason="no kernels were built here")

IDS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
OWN_MASKS = [
    rg.Everything(),
    rg.Nothing(),
    rg.Causal() & rg.Document(IDS),
    rg.SlidingWindow(None, 2) | ~rg.Prefix(3),
    rg.Chunked(4) & rg.Dilated(2) & rg.Document(IDS, IDS.flip(0)),
    ~(rg.Padding(torch.tensor([3, 9])) | rg.Padding.from_valid(torch.rand(2, 9) > 0.5)) & rg.SlidingWindow(2, None),
    rg.Dense(torch.rand(2, 4, 9, 9) > 0.4),
]


def arguments(own: rg.Mask, dtype: torch.dtype = torch.float32, **changed: Any) -> tuple[Any, ...]:
    text, numbers, tensors = spelling.spell(own) or ("", [], [])
    q, k, v = (torch.randn(2, heads, 9, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2))
    given: dict[str, Any] = {
        "q": q, "k": k, "v": v, "sinks": None, "tables": [], "mask_tensors": tensors,
        "q_positions": None, "k_positions": None, "seed": None, "mask": text, "mask_numbers": numbers,
        "changes": "", "caps": [], "scale": 0.3, "dropout_p": 0.0, "save": True,
    }  # fmt: skip
    assert changed.keys() <= given.keys()
    return tuple({**given, **changed}.values())


FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "positions": {"q_positions": torch.arange(9).flip(0)[None], "k_positions": torch.arange(9).roll(2)[None]},
    "dropout": {"dropout_p": 0.3, "seed": torch.tensor(77)},
    "scores": {
        "changes": "cap distance add",
        "caps": [3.0],
        "tables": [torch.randn(4, 17, requires_grad=True), torch.randn(1, 4, 1, 9)],
    },
    "sinks": {"sinks": torch.zeros(4, requires_grad=True)},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
def test_torchs_own_check_of_operators_passes(feature: dict[str, Any], dtype: torch.dtype) -> None:
    mask = rg.Causal() & rg.Padding(torch.tensor([5, 9]))
    torch.library.opcheck(torch.ops.regard.attention.default, arguments(mask, dtype, **feature))


def test_torchs_own_check_passes_for_the_backward_operator() -> None:
    q, k, v, *rest, save = arguments(rg.Causal(), **FEATURES["scores"])
    out, lse, norms, _ = torch.ops.regard.attention(q, k, v, *rest, save)
    sinks, tables, *rest = rest
    tensors = (out, q, k, v, lse, norms, *tables)
    out, q, k, v, lse, norms, *tables = (x.detach() for x in tensors)
    given = (out, None, q, k, v, sinks, tables, lse, norms, out, *rest, [True, False])
    torch.library.opcheck(torch.ops.regard.attention_backward.default, given)


def test_a_second_derivative_is_refused() -> None:
    q, *rest = arguments(rg.Causal())
    (first,) = torch.autograd.grad(torch.ops.regard.attention(q, *rest)[0].sum(), q, create_graph=True)
    with pytest.raises(rg.UnsupportedError, match=r'no second derivative.*backend="reference"'):
        first.sum().backward()


@pytest.mark.parametrize("mask", OWN_MASKS, ids=repr)
def test_a_mask_is_spelled_and_read_back(mask: rg.Mask) -> None:
    spelled = spelling.spell(mask)
    assert spelled is not None
    assert spelling.read(*spelled) == mask


def test_what_holds_a_function_or_is_not_ours_is_not_spelled() -> None:
    class Own(rg.Causal):
        pass

    for mask in (rg.Predicate(lambda b, h, q, k: q >= k), Own()):
        assert spelling.spell(rg.Prefix(2) | ~(rg.Causal() & mask)) is None


@pytest.mark.parametrize("mask", OWN_MASKS, ids=repr)
def test_the_operator_is_the_backend(mask: rg.Mask) -> None:
    given = arguments(mask)
    out, lse, *_ = torch.ops.regard.attention(*given)
    eager = rg.inspect(*given[:3], mask=mask, scale=0.3, backend="native")
    assert torch.equal(out, eager.out)
    assert torch.equal(lse, eager.lse)
    found, right = (torch.autograd.grad(x.square().sum(), given[:3]) for x in (out, eager.out))
    for ours, theirs in zip(found, right, strict=True):
        assert torch.equal(ours, theirs)


def test_operands_may_have_any_strides() -> None:
    q, k, v, *rest = arguments(rg.Causal())
    k_turned = k.detach().mT.contiguous().mT
    assert torch.equal(
        torch.ops.regard.attention(q, k_turned, v, *rest)[0], torch.ops.regard.attention(q, k, v, *rest)[0]
    )


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"k": torch.randn(2, 2, 9, 7)}, rg.ShapeError, "same number of features"),
        ({"mask": "Document t -", "mask_tensors": [IDS[:4]]}, rg.ShapeError, "an id for each of the 9 positions"),
        ({"changes": "cap"}, rg.ArgumentError, "each with its cap or table: got 'cap', 0 caps"),
        ({"changes": "add", "tables": [torch.zeros(1, 1, 1, 8)]}, rg.ShapeError, r"must be float32 \(2, 4, 9, 9\)"),
        ({"changes": "distance", "tables": [torch.zeros(4, 9)]}, rg.ShapeError, r"must be float32 \(4, 17\)"),
        ({"v": torch.randn(2, 2, 9, 257)}, rg.UnsupportedError, "takes 1 to 256 features, and v have 257"),
        ({n: torch.randn(2, 2, 9, 8).double() for n in "qkv"}, rg.UnsupportedError, "takes float32"),
    ],
)
def test_it_checks_what_it_is_given(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        torch.ops.regard.attention(*arguments(rg.Causal(), **changed))


CACHES: dict[str, tuple[Callable[[], rg.cache.Cache], rg.Mask | None, int]] = {
    "full": (rg.cache.FullCache, None, 2),
    "preallocated": (lambda: rg.cache.FullCache(4096), None, 2),
    "rolling": (lambda: rg.cache.RollingCache(5), rg.SlidingWindow(4), 6),
    "sinks": (lambda: rg.cache.SinkCache(1, 4), rg.SlidingWindow(3) | rg.Prefix(1), 7),
}
"""Caches, a mask that fits each, and the fewest tokens before a step: enough that a window has dropped some."""


class TestExport:
    """`torch.export` with dynamic lengths; the program runs on other lengths and gives what the module gives."""

    LENGTH = torch.export.Dim("length", min=2, max=2000)

    def check(self, module: torch.nn.Module, example: Any, shapes: Any, others: Sequence[Any], *, strict: bool) -> None:
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=strict)
        called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert "regard.attention.default" in called
        for inputs in others:
            torch.testing.assert_close(program.module()(*inputs), module(*inputs))

    @pytest.mark.parametrize("strict", [False, True], ids=["non_strict", "strict"])
    def test_attention_with_ids(self, *, strict: bool) -> None:
        class Attend(torch.nn.Module):
            def forward(self, q: Tensor, k: Tensor, v: Tensor, ids: Tensor) -> Tensor:
                mask = rg.Causal() & rg.Document(ids)
                return rg.attention(q, k, v, mask=mask, score_mod=rg.Alibi.for_heads(4))

        def inputs(length: int) -> tuple[Tensor, ...]:
            q, k, v = (torch.randn(2, 4, length, 8) for _ in range(3))
            return q, k, v, torch.arange(length) // 4

        shapes = ({2: self.LENGTH}, {2: self.LENGTH}, {2: self.LENGTH}, {0: self.LENGTH})
        self.check(Attend(), inputs(13), shapes, [inputs(5), inputs(301)], strict=strict)

    def test_a_mask_is_an_input(self) -> None:
        class Layer(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = rg.nn.MultiHeadAttention(8, 8, 4096, 0.0, 2, rope=rg.nn.RotaryEmbedding(4))

            def forward(self, x: Tensor, mask: rg.Mask) -> Tensor:
                y: Tensor = self.layer(x, mask=mask)
                return y

        def inputs(length: int) -> tuple[Tensor, rg.Mask]:
            return torch.randn(2, length, 8), rg.Document(torch.arange(length) // 4)

        shapes = ({1: self.LENGTH}, [{0: self.LENGTH}])
        self.check(Layer(), inputs(13), shapes, [inputs(5), inputs(301)], strict=False)

    @pytest.mark.parametrize("strict", [False, True], ids=["non_strict", "strict"])
    @pytest.mark.parametrize(("make", "mask", "shortest"), CACHES.values(), ids=CACHES)
    def test_a_layer_with_a_cache(
        self, make: Callable[[], rg.cache.Cache], mask: rg.Mask | None, shortest: int, *, strict: bool
    ) -> None:
        class Step(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = rg.nn.MultiHeadAttention(8, 8, 4096, 0.0, 2, rope=rg.nn.RotaryEmbedding(4))

            def forward(self, x: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
                cache = make()
                cache.append(past_k, past_v)
                y: Tensor = self.layer(x, cache=cache, mask=mask)
                return y

        def inputs(new: int, past: int) -> tuple[Tensor, ...]:
            return torch.randn(2, new, 8), torch.randn(2, 2, past, 4), torch.randn(2, 2, past, 4)

        past = torch.export.Dim("past", min=shortest, max=2000)
        shapes = ({1: self.LENGTH}, {2: past}, {2: past})
        others = [inputs(5, 19), inputs(2, 300), inputs(40, shortest)]
        self.check(Step(), inputs(3, 11), shapes, others, strict=strict)

    def test_a_mask_that_needs_dropped_keys_stops_the_program(self) -> None:
        class Step(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = rg.nn.MultiHeadAttention(8, 8, 4096, 0.0, 2)

            def forward(self, x: Tensor, past: Tensor, ids: Tensor) -> Tensor:
                cache = rg.cache.RollingCache(5)
                cache.append(past, past)
                y: Tensor = self.layer(x, cache=cache, mask=rg.Document(ids))
                return y

        def inputs(past: int, own: int) -> tuple[Tensor, ...]:
            """The last ``own`` tokens are a document of their own."""
            return torch.randn(2, 1, 8), torch.randn(2, 2, past, 4), (torch.arange(past + 1) > past - own).long()

        length = torch.export.Dim("past", min=6, max=2000)
        program = torch.export.export(Step(), inputs(9, 3), dynamic_shapes=(None, {2: length}, {0: length + 1}))
        assert program.module()(*inputs(30, 6)).isfinite().all()
        with pytest.raises(RuntimeError, match="lets a query see keys that the cache has dropped"):
            program.module()(*inputs(30, 7))

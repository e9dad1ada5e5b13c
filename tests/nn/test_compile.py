"""`torch.compile` takes every rung as one graph, forward and backward."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import regard as rg

Build = Callable[..., nn.Module]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def assert_compiles(module: nn.Module, x: Tensor, *, fullgraph: bool = True, backend: str = "aot_eager") -> None:
    compiled = torch.compile(module, fullgraph=fullgraph, backend=backend)
    x = x.clone().requires_grad_()
    wanted = [x, *module.parameters()]
    out, expected = compiled(x), module(x)
    torch.testing.assert_close(out, expected)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    ours, theirs = (torch.autograd.grad(y, wanted, cotangent) for y in (out, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", ["torch", None], ids=["torch", "chosen"])
@pytest.mark.parametrize(
    "make",
    [
        rg.nn.SimpleSelfAttention,
        lambda **o: rg.nn.SelfAttentionV1(5, 3, **o),
        lambda **o: rg.nn.SelfAttentionV2(5, 3, **o),
        lambda **o: rg.nn.CausalAttention(5, 3, 11, 0.1, **o),
        lambda **o: rg.nn.MultiHeadAttentionWrapper(5, 3, 11, 0.1, 2, **o),
        lambda **o: rg.nn.MultiHeadAttention(5, 6, 11, 0.1, 2, **o),
        lambda **o: rg.nn.MultiHeadAttention(5, 8, 11, 0.1, 4, num_kv_heads=2, mask=None, **o),
    ],
    ids=["simple", "v1", "v2", "causal", "wrapper", "multi_head", "grouped"],
)
def test_every_rung_is_one_graph(make: Build, backend: str | None, tokens: Tensor) -> None:
    torch.manual_seed(1)
    assert_compiles(make(backend=backend).eval(), tokens.float())


def test_every_feature_is_one_graph_on_the_reference(build: Build, tokens: Tensor) -> None:
    assert_compiles(build(backend="reference"), tokens.float())


# After a graph break the compiler itself reads .grad of a tensor inside the graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_every_feature_compiles_on_the_chosen_backend(build: Build, tokens: Tensor) -> None:
    assert_compiles(build(), tokens.float(), fullgraph=False)


def test_cross_attention_is_one_graph(tokens: Tensor) -> None:
    torch.manual_seed(1)
    module, x = rg.nn.MultiHeadAttention(5, 6, 11, 0.0, 2), tokens.float()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x[:, :3], context=x), module(x[:, :3], context=x))


# Importing inductor uses a decorator that torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_inductor_generates_code_for_the_last_rung(tokens: Tensor) -> None:
    torch.manual_seed(1)
    assert_compiles(rg.nn.MultiHeadAttention(5, 6, 11, 0.0, 2), tokens.float(), backend="inductor")


CACHES: dict[str, tuple[Callable[[], rg.cache.Cache], rg.Mask | None]] = {
    "full": (rg.cache.FullCache, None),
    "preallocated": (lambda: rg.cache.FullCache(64), None),
    "rolling": (lambda: rg.cache.RollingCache(5), rg.SlidingWindow(4)),
    "sinks": (lambda: rg.cache.SinkCache(1, 4), rg.SlidingWindow(3) | rg.Prefix(1)),
}


@pytest.mark.parametrize(("make", "mask"), CACHES.values(), ids=CACHES)
def test_decoding_with_a_cache_is_one_graph(make: Callable[[], rg.cache.Cache], mask: rg.Mask | None) -> None:
    torch.manual_seed(1)
    module = rg.nn.MultiHeadAttention(8, 8, 64, 0.0, 2, rope=rg.nn.RotaryEmbedding(4)).eval()
    graphs = CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=graphs)
    caches = make(), make()
    with torch.no_grad():
        for step in range(14):
            x = torch.randn(2, 1 if step else 7, 8)
            torch.testing.assert_close(compiled(x, cache=caches[0], mask=mask), module(x, cache=caches[1], mask=mask))
    assert caches[0].length == caches[1].length == 20
    # The first call, a length that varies, new memory; never one for each length.
    assert graphs.frame_count <= 6


def test_a_graph_refuses_a_mask_that_needs_dropped_keys() -> None:
    module = rg.nn.MultiHeadAttention(8, 8, 64, 0.0, 2).eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    cache = rg.cache.RollingCache(3)
    with torch.no_grad():
        compiled(torch.randn(2, 7, 8), cache=cache, mask=rg.SlidingWindow(2))
        with pytest.raises(RuntimeError, match=r"lets a query see keys that the cache has dropped\. Use a FullCache"):
            compiled(torch.randn(2, 7, 8), cache=cache, mask=rg.SlidingWindow(6))

"""`MultiHeadAttention` over a cache: any division of a sequence into calls gives what one pass gives."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regard as rg
from regard.cache import Cache, FullCache, RollingCache, SinkCache
from regard.nn import DynamicNTK, RotaryEmbedding, YaRN
from regard.testing import assert_cache_consistent, assert_close_to_oracle

WINDOW, SINKS = 5, 2
IDS = torch.tensor([0] * 7 + [1] * 4 + [0] * 13)
ANY_CACHE: list[Callable[[], Cache]] = [FullCache, lambda: FullCache(max_length=23), lambda: RollingCache(23)]
NEAR = rg.SlidingWindow.of_width(WINDOW)
FITTING: list[tuple[rg.Mask, list[Callable[[], Cache]]]] = [
    (rg.Causal(), ANY_CACHE),
    (rg.Causal() & rg.Document(IDS), ANY_CACHE),
    (rg.Causal() & rg.Dilated(3), ANY_CACHE),
    (rg.Causal() & rg.Predicate(lambda b, h, q, k: (q + k + h) % 3 != 1), ANY_CACHE),
    (NEAR, [*ANY_CACHE, lambda: RollingCache(WINDOW), lambda: SinkCache(0, WINDOW), lambda: SinkCache(3, WINDOW)]),
    (rg.SlidingWindow(WINDOW), [lambda: RollingCache(WINDOW)]),
    (NEAR & rg.Predicate(lambda b, h, q, k: (q + k + h) % 3 != 1), [lambda: RollingCache(WINDOW)]),
    (rg.Causal() & (NEAR | rg.Prefix(SINKS)), [*ANY_CACHE, lambda: SinkCache(SINKS, WINDOW)]),
    (rg.Causal() & rg.Chunked(4), [*ANY_CACHE, lambda: RollingCache(4)]),
]
ROPES = [None, RotaryEmbedding(4), RotaryEmbedding(2, layout="interleaved", scaling=YaRN(4.0, 8))]


def make(dtype: torch.dtype = torch.float64, context_length: int = 23, **options: object) -> rg.nn.MultiHeadAttention:
    torch.manual_seed(7)
    options = {"num_kv_heads": 2, "head_dim": 4} | options
    module = rg.nn.MultiHeadAttention(5, 6, context_length, 0.0, 6, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    return module.to(dtype).eval()


def tokens(length: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, length, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(length)).to(dtype)


def in_parts(module: Callable[..., Tensor], x: Tensor, sizes: list[int], cache: Cache, **arguments: object) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(part, cache=cache, **arguments) for part in x.split(sizes, 1)], 1)


@st.composite
def divisions(draw: st.DrawFn) -> list[int]:
    total = draw(st.integers(1, 23))
    cuts = draw(st.lists(st.integers(0, total), max_size=7).map(sorted))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


@given(
    fit=st.sampled_from([(mask, cache) for mask, caches in FITTING for cache in caches]),
    sizes=st.one_of(divisions(), st.integers(1, 23).map(lambda n: [1] * n)),
    rope=st.sampled_from(ROPES),
    sinks=st.booleans(),
    score_mod=st.sampled_from([None, rg.Alibi.for_heads(6)]),
    qk_norm=st.sampled_from([None, nn.RMSNorm]),
)
@settings(max_examples=150)
def test_any_division_equals_one_pass(
    fit: tuple[rg.Mask, Callable[[], Cache]],
    sizes: list[int],
    rope: RotaryEmbedding | None,
    sinks: bool,
    score_mod: rg.ScoreModification | None,
    qk_norm: Callable[[int], nn.Module] | None,
) -> None:
    mask, make_cache = fit
    module = make(mask=mask, rope=rope, sinks=sinks, score_mod=score_mod, qk_norm=qk_norm)
    x = tokens(sum(sizes))
    torch.testing.assert_close(in_parts(module, x, sizes, make_cache()), module(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 3, 17])
def test_steps_stay_within_the_oracles_tolerance(dtype: torch.dtype, size: int) -> None:
    k, v = (torch.randn(2, 2, 17, 4).to(dtype) for _ in range(2))
    q, cache, outs = torch.randn(2, 6, 17, 4).to(dtype), RollingCache(WINDOW), []
    for a in range(0, 17, size):
        part = slice(a, min(a + size, 17))
        keys, values, k_positions = cache.append(k[:, :, part], v[:, :, part])
        places = torch.arange(part.start, part.stop)
        queries = q[:, :, part]
        outs.append(rg.attention(queries, keys, values, mask=NEAR, q_positions=places, k_positions=k_positions))
    assert_close_to_oracle(torch.cat(outs, 2), q, k, v, mask=NEAR)


@pytest.mark.parametrize("rope", ROPES, ids=["none", "half-split", "interleaved"])
def test_the_modules_own_assert_agrees(rope: RotaryEmbedding | None) -> None:
    x = tokens(19, torch.float32)
    assert_cache_consistent(make(torch.float32, rope=rope), x, FullCache, chunks=(1, 3, 7))
    rolling = make(torch.float32, rope=rope, mask=NEAR)
    assert_cache_consistent(rolling, x, lambda: RollingCache(WINDOW), chunks=(1, 3, 7))


def test_a_sequence_without_batch() -> None:
    module, x = make(rope=RotaryEmbedding(4)), tokens(9)[0]
    cache = RollingCache(20)
    with torch.no_grad():
        parts = [module(part, cache=cache) for part in x.split([4, 1, 4])]
    torch.testing.assert_close(torch.cat(parts), module(x))


def test_a_mask_for_the_call_goes_by_the_place_in_the_whole_sequence() -> None:
    module, x, lengths = make(mask=NEAR), tokens(11), torch.tensor([7, 11])
    whole = module(x, mask=rg.Padding(lengths))
    parts = in_parts(module, x, [4, 1, 6], RollingCache(WINDOW), mask=rg.Padding(lengths))
    torch.testing.assert_close(parts, whole)


def test_padding_on_the_left_with_positions_equals_each_sequence_alone() -> None:
    module, x = make(rope=RotaryEmbedding(4)), tokens(9)
    valid = torch.arange(9) >= torch.tensor([[3], [0]])
    positions = (torch.arange(9) - torch.tensor([[3], [0]])).clamp(min=0)
    cache, outs = FullCache(), []
    with torch.no_grad():
        for part in (slice(0, 5), slice(5, 6), slice(6, 9)):
            mask = rg.Padding.from_valid(valid[:, : part.stop])
            outs.append(module(x[:, part], cache=cache, mask=mask, positions=positions[:, part]))
    out = torch.cat(outs, 1)
    torch.testing.assert_close(out[0, 3:], module(x[0, 3:]))
    torch.testing.assert_close(out[1], module(x[1]))


@pytest.mark.parametrize("make_cache", [FullCache, lambda: RollingCache(WINDOW + 3)], ids=["full", "rolling"])
def test_drafted_tokens_taken_back_leave_no_trace(make_cache: Callable[[], Cache]) -> None:
    module, x = make(mask=NEAR, rope=RotaryEmbedding(4)), tokens(13)
    cache = make_cache()
    before = in_parts(module, x[:, :9], [9], cache)
    in_parts(module, tokens(3), [3], cache)
    cache.crop(9)
    after = in_parts(module, x[:, 9:], [1, 3], cache)
    torch.testing.assert_close(torch.cat([before, after], 1), module(x))


@pytest.mark.parametrize("make_cache", [FullCache, lambda: RollingCache(WINDOW), lambda: SinkCache(1, WINDOW)])
def test_beams_that_change_places_go_on_with_their_own_past(make_cache: Callable[[], Cache]) -> None:
    module, x, index = make(mask=NEAR, rope=RotaryEmbedding(4)), tokens(13), torch.tensor([1, 1, 0])
    cache = make_cache()
    in_parts(module, x[:, :9], [4, 5], cache)
    cache.reorder(index)
    after = in_parts(module, x[index, 9:], [2, 2], cache)
    torch.testing.assert_close(after, module(x[index])[:, 9:])


@pytest.mark.parametrize("make_cache", [FullCache, lambda: FullCache(max_length=23)], ids=["growing", "preallocated"])
def test_steps_over_a_full_cache_are_one_graph_each(make_cache: Callable[[], Cache]) -> None:
    torch.compiler.reset()
    module, x = make(torch.float32, rope=RotaryEmbedding(4)), tokens(8, torch.float32)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(in_parts(compiled, x, [3, 3, 1, 1], make_cache()), module(x))


def test_gradients_through_a_cache_are_those_of_one_pass() -> None:
    module, x = make(rope=RotaryEmbedding(4), mask=NEAR), tokens(9).requires_grad_()
    cache, wanted = RollingCache(WINDOW), [x, *module.parameters()]
    parts = torch.cat([module(part, cache=cache) for part in x.split([4, 1, 4], 1)], 1)
    ours, theirs = (torch.autograd.grad(out.square().sum(), wanted) for out in (parts, module(x)))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("mask", "make_cache", "gone"),
    [
        (rg.Causal(), lambda: RollingCache(WINDOW), "0 … 1"),
        (None, lambda: RollingCache(WINDOW), "0 … 1"),
        (rg.SlidingWindow(WINDOW + 1), lambda: RollingCache(WINDOW), "0 … 1"),
        (NEAR | rg.Prefix(1), lambda: RollingCache(WINDOW), "0 … 1"),
        (rg.Causal(), lambda: SinkCache(1, WINDOW), "1 … 1"),
        (rg.Causal() & rg.Predicate(lambda b, h, q, k: k != 0), lambda: RollingCache(WINDOW), "0 … 1"),
    ],
)
def test_a_mask_that_needs_dropped_keys_is_refused_and_the_cache_stays(
    mask: rg.Mask | None, make_cache: Callable[[], Cache], gone: str
) -> None:
    module, x, cache = make(mask=mask), tokens(9), make_cache()
    in_parts(module, x[:, :7], [7], cache)
    message = rf"lets a query at position 7 … 8 see keys at positions {gone}, which {cache!r} has dropped"
    with pytest.raises(rg.ArgumentError, match=message.replace("(", r"\(").replace(")", r"\)")):
        module(x[:, 7:], cache=cache)
    assert cache.length == 7


@pytest.mark.parametrize("make_cache", [FullCache, lambda: RollingCache(WINDOW)], ids=["full", "rolling"])
def test_a_mask_of_another_size_is_refused_and_the_cache_stays(make_cache: Callable[[], Cache]) -> None:
    module, cache = make(mask=NEAR), make_cache()
    in_parts(module, tokens(7), [7], cache)
    with pytest.raises(rg.ShapeError, match="Dense"):
        module(tokens(2), cache=cache, mask=rg.Dense(torch.ones(2, 7, dtype=torch.bool)))
    assert cache.length == 7


def test_the_reach_of_a_mask_without_intervals_is_asked_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.cache.reach._STRIP_PAIRS", 1)
    mask = rg.Causal() & rg.Predicate(lambda b, h, q, k: (k != 1) & (k != 0))
    module, x, cache = make(mask=mask), tokens(9), RollingCache(WINDOW)
    in_parts(module, x[:, :7], [7], cache)
    torch.testing.assert_close(in_parts(module, x[:, 7:8], [1], cache), module(x[:, :8])[:, 7:])
    with pytest.raises(rg.ArgumentError, match="positions 0 … 2"):
        module(x[:, 8:], cache=cache)


def test_the_context_length_counts_the_cache() -> None:
    module, cache = make(context_length=8), FullCache()
    in_parts(module, tokens(6), [6], cache)
    with pytest.raises(rg.ShapeError, match=r"x has 3 tokens and the cache 6 .* context_length=8\. .*context_length=9"):
        module(tokens(3), cache=cache)
    assert cache.length == 6
    assert in_parts(module, tokens(2), [2], cache).shape == (2, 2, 6)


def test_dynamic_ntk_is_refused_over_a_cache_beyond_its_original_length() -> None:
    module, x, cache = make(rope=RotaryEmbedding(4, scaling=DynamicNTK(2.0, 6))), tokens(7), FullCache()
    torch.testing.assert_close(in_parts(module, x[:, :6], [4, 2], cache), module(x[:, :6]))
    with pytest.raises(rg.UnsupportedError, match=r"DynamicNTK.* beyond 6 tokens: got a token at position 6\. .*YaRN"):
        module(x[:, 6:], cache=cache)
    assert cache.length == 6


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ({"cache": []}, {}, rg.KindError, r"cache takes one of regard\.cache, such as FullCache\(\): got \[\]"),
        ({"cache": FullCache(), "context": tokens(3)}, {}, rg.ArgumentError, "give one of the two"),
        ({"context": tokens(3)}, {"rope": RotaryEmbedding(4)}, rg.ArgumentError, "for cross-attention without rope"),
        ({"positions": torch.arange(4)}, {}, rg.ArgumentError, r"this module has none\. .*rope=RotaryEmbedding"),
        ({"positions": torch.arange(3)}, {"rope": RotaryEmbedding(4)}, rg.ShapeError, r"positions must be \(4,\)"),
    ],
)
def test_bad_forward_arguments(
    arguments: dict[str, object], options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**options)(tokens(4), **arguments)  # type: ignore[arg-type]

"""Caches as such: what they hold, where it stands, and that what they handed out stays as it was."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard.cache import Cache, FullCache, RollingCache, SinkCache

MAKERS: dict[str, Callable[[], Cache]] = {
    "full": FullCache,
    "preallocated": lambda: FullCache(max_length=60),
    "rolling": lambda: RollingCache(5),
    "sinks": lambda: SinkCache(2, 3),
}
each_cache = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
sizes = st.lists(st.integers(0, 9), min_size=1, max_size=6)


def tokens(start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Keys and values that tell their position: ``(2, 1, L, 3)`` and ``(2, 1, L, 2)``."""
    place = torch.arange(start, stop, dtype=torch.float64)[:, None]
    entry = torch.tensor([0.0, 0.5], dtype=torch.float64)[:, None, None, None]
    return (place + entry).expand(2, 1, -1, 3).clone(), (-place - entry).expand(2, 1, -1, 2).clone()


def fed(cache: Cache, count: int) -> tuple[Tensor, Tensor, Tensor]:
    return cache.append(*tokens(cache.length, cache.length + count))


def at(positions: list[int]) -> tuple[Tensor, Tensor]:
    k, v = tokens(0, max(positions, default=-1) + 1)
    return k[:, :, positions], v[:, :, positions]


@each_cache
@given(chunks=sizes)
def test_append_returns_what_is_held_and_all_that_is_new(make: Callable[[], Cache], chunks: list[int]) -> None:
    cache = make()
    for count in chunks:
        before, gone = cache.length, set(cache.dropped)
        k, v, positions = fed(cache, count)
        assert cache.length == before + count
        assert positions.tolist() == [p for p in range(cache.length) if p not in gone]
        for held, expected in zip((k, v), at(positions.tolist()), strict=True):
            assert torch.equal(held, expected)


@given(chunks=sizes)
def test_what_each_cache_drops(chunks: list[int]) -> None:
    full, rolling, sinks = FullCache(), RollingCache(5), SinkCache(2, 3)
    for count in chunks:
        for cache in (full, rolling, sinks):
            fed(cache, count)
    n = sum(chunks)
    assert not full.dropped
    assert list(rolling.dropped) == list(range(n - 5))
    assert list(sinks.dropped) == list(range(2, n - 3))


@each_cache
def test_nothing_done_later_changes_what_was_returned(make: Callable[[], Cache]) -> None:
    cache, returned = make(), []
    for step in range(12):
        pair = fed(cache, 1 + step % 3)
        returned.append((pair, [x.clone() for x in pair]))
        if step % 4 == 3:
            cache.crop(cache.length - 1)
            cache.append(*tokens(900, 902))
            cache.reorder(torch.tensor([1, 0]))
            cache.reorder(torch.tensor([1, 0]))
    cache.reset()
    fed(cache, 7)
    for pair, kept in returned:
        assert all(torch.equal(x, y) for x, y in zip(pair, kept, strict=True))


@each_cache
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_lazy_weights_are_not_stale_when_the_cache_goes_on(
    make: Callable[[], Cache], mode: Callable[..., object]
) -> None:
    cache = make()
    with mode():  # type: ignore[attr-defined]
        k, v, _ = fed(cache, 4)
        query = torch.ones(2, 3, 4, 3, dtype=torch.float64)
        seen = rg.inspect(query, k, v, mask=rg.Causal())
        expected = seen.weights.dense().clone()
        for _ in range(9):
            fed(cache, 1)
        assert torch.equal(seen.weights.dense(), expected)


@each_cache
@given(chunks=sizes, back=st.integers(0, 3), more=st.integers(1, 4))
def test_crop_goes_back_as_if_the_tokens_had_never_come(
    make: Callable[[], Cache], chunks: list[int], back: int, more: int
) -> None:
    cache = make()
    for count in chunks:
        fed(cache, count)
    back = min(back, cache.length)
    gone = set(cache.dropped)
    cache.crop(cache.length - back)
    # Other tokens take the place of those taken back.
    length = cache.length
    k, v = tokens(length + 100, length + 100 + more)
    keys, values, positions = cache.append(k, v)
    if length:
        assert positions.tolist() == [p for p in range(length + more) if p not in gone]
    old = positions[:-more].tolist()
    for found, was, new in zip((keys, values), at(old), (k, v), strict=True):
        assert torch.equal(found, torch.cat([was, new], -2))


@each_cache
@given(chunks=sizes)
def test_reorder_is_as_if_the_sequences_had_come_in_that_order(make: Callable[[], Cache], chunks: list[int]) -> None:
    index = torch.tensor([1, 1, 0])
    cache, other = make(), make()
    for count in chunks:
        k, v = tokens(cache.length, cache.length + count)
        cache.append(k, v)
        other.append(k[index], v[index])
    cache.reorder(index)
    k, v = tokens(500, 502)
    for one, two in zip(cache.append(k[index], v[index]), other.append(k[index], v[index]), strict=True):
        assert torch.equal(one, two)


@each_cache
def test_reset_forgets_sizes_too(make: Callable[[], Cache]) -> None:
    cache = make()
    fed(cache, 11)
    cache.reset()
    assert (cache.length, list(cache.dropped)) == (0, [])
    k, _, positions = cache.append(torch.zeros(3, 2, 4, 7), torch.zeros(3, 2, 4, 7))
    assert (k.shape, positions.tolist()) == ((3, 2, 4, 7), [0, 1, 2, 3])


@each_cache
@pytest.mark.parametrize("again", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_by_itself(make: Callable[[], Cache], again: Callable[[Cache], Cache]) -> None:
    cache = make()
    fed(cache, 9)
    other = again(cache)
    k, v = tokens(700, 703)
    other.append(k, v)
    mine, _, positions = fed(cache, 3)
    assert torch.equal(mine, at(positions.tolist())[0])


@each_cache
def test_gradients_flow_through_every_append(make: Callable[[], Cache]) -> None:
    cache, leaves, total = make(), [], torch.zeros((), dtype=torch.float64)
    for step in range(8):
        k, v = (x.requires_grad_() for x in tokens(cache.length, cache.length + 1 + step % 2))
        leaves += [k, v]
        keys, values, positions = cache.append(k, v)
        total = total + ((keys.square().sum(-1) + values.sum(-1)) * (positions + step)).sum()
    cache.reset()
    expected, held = torch.zeros((), dtype=torch.float64), make()
    for step in range(8):
        gone = list(held.dropped)
        fed(held, 1 + step % 2)
        keys, values = (torch.cat(leaves[side : 2 * step + 2 : 2], -2) for side in (0, 1))
        places = [p for p in range(held.length) if p not in gone]
        row = keys[:, :, places].square().sum(-1) + values[:, :, places].sum(-1)
        expected = expected + (row * (torch.tensor(places) + step)).sum()
    ours, theirs = (torch.autograd.grad(y, leaves) for y in (total, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@each_cache
def test_training_may_be_followed_by_decoding_and_inference_mode_by_another(make: Callable[[], Cache]) -> None:
    cache = make()
    k, v = (x.requires_grad_() for x in tokens(0, 3))
    cache.append(k, v)
    for mode in (torch.no_grad, torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            keys, _, positions = fed(cache, 2)
            assert not keys.requires_grad
            assert torch.equal(keys, at(positions.tolist())[0])


def test_memory_doubles_and_is_taken_once_if_reserved() -> None:
    def moves(cache: Cache) -> int:
        seen = set()
        for _ in range(40):
            k, _, _ = fed(cache, 1)
            seen.add(k.untyped_storage().data_ptr())
            alive.append(k)
        return len(seen)

    alive: list[Tensor] = []
    assert moves(FullCache()) <= 7
    assert moves(FullCache(max_length=40)) == 1
    reserved = FullCache()
    reserved.reserve(40)
    assert moves(reserved) == 1
    assert moves(RollingCache(10)) <= 5


def test_a_rolling_cache_does_not_grow() -> None:
    cache = RollingCache(5)
    most = 0
    for _ in range(100):
        k, _, _ = fed(cache, 1)
        most = max(most, k.untyped_storage().nbytes() // (2 * 3 * 8))
    assert most <= 3 * 5


def test_reprs() -> None:
    caches = [FullCache(), FullCache(max_length=7), RollingCache(5), SinkCache(2, 3)]
    assert [repr(c) for c in caches] == ["FullCache()", "FullCache(max_length=7)", "RollingCache(5)", "SinkCache(2, 3)"]


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        (lambda c: c.append(*tokens(4, 8)), rg.ArgumentError, "max_length=7 tokens: it has 4 and got 4 more"),
        (lambda c: c.append(torch.zeros(2, 1, 1, 3), tokens(4, 5)[1]), rg.KindError, "k must have the dtype"),
        (lambda c: c.append(tokens(4, 6)[0], tokens(4, 5)[1]), rg.ShapeError, "alike but for their last dim"),
        (
            lambda c: c.append(*(x[:1] for x in tokens(4, 5))),
            rg.ShapeError,
            r"holds, \(2, 1, 4, 3\).*got \(1, 1, 1, 3\)",
        ),
        (lambda c: c.append([1.0], [2.0]), rg.KindError, r"takes floating-point tensors: got k \[1\.0\]"),
        (lambda c: c.crop(5), rg.ArgumentError, "at most the 4 tokens so far: got 5"),
        (lambda c: c.crop(-1), rg.ArgumentError, "length must be at least 0: got -1"),
        (lambda c: c.reserve(8), rg.ArgumentError, "within max_length=7: got 8"),
        (lambda c: c.reorder(torch.tensor([0, 2])), rg.ArgumentError, r"entries from 0 to 1: got \[0, 2\]"),
        (lambda c: c.reorder([0]), rg.KindError, r"int64 tensor of batch entries: got \[0\]"),
        (lambda c: c.reorder(torch.tensor([[0]])), rg.ShapeError, r"got \(1, 1\)"),
        (lambda c: FullCache(0), rg.ArgumentError, "max_length must be at least 1: got 0"),
        (lambda c: RollingCache(0), rg.ArgumentError, "window must be at least 1: got 0"),
        (lambda c: SinkCache(-1, 3), rg.ArgumentError, "sinks must be at least 0: got -1"),
    ],
)
def test_refusals_leave_a_cache_as_it_was(
    do: Callable[[FullCache], object], error: type[Exception], message: str
) -> None:
    cache = FullCache(max_length=7)
    fed(cache, 4)
    with pytest.raises(error, match=message):
        do(cache)
    k, _, positions = fed(cache, 1)
    assert torch.equal(k, at(positions.tolist())[0])


def test_a_cache_cannot_go_back_to_what_it_dropped() -> None:
    cache = SinkCache(2, 3)
    fed(cache, 9)
    with pytest.raises(rg.ArgumentError, match=r"SinkCache\(2, 3\) has dropped .* positions 2 … 5 .* back to 4 tokens"):
        cache.crop(4)
    cache.crop(6)
    assert fed(cache, 1)[2].tolist() == [0, 1, 6]


def test_reorder_needs_a_batch() -> None:
    cache = FullCache()
    cache.append(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(rg.ArgumentError, match=r"with a batch dim .*: got float32 \(2, 3, 4\)"):
        cache.reorder(torch.tensor([0]))

"""What `regard.record` records of regard's own modules, and of torch's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard._observe import attend
from regard.recording import Layer


class Block(nn.Module):
    """Two attention layers with a residual, called with token ids, with a cache or without."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.layers = nn.ModuleList(
            rg.nn.MultiHeadAttention(16, 16, 64, 0.0, 4, **options)  # type: ignore[arg-type]
            for _ in range(2)
        )

    def forward(self, ids: Tensor, caches: list[rg.cache.Cache] | None = None, mask: rg.Mask | None = None) -> Tensor:
        x: Tensor = self.embed(ids)
        for n, layer in enumerate(self.layers):
            x = x + layer(x, cache=None if caches is None else caches[n], mask=mask)
        return x


class Words:
    def decode(self, ids: Sequence[int], /) -> str:
        return "".join(f"<{n}>" for n in ids)


def ids(count: int = 12, batch: int = 2) -> Tensor:
    return torch.randint(0, 50, (batch, count), generator=torch.Generator().manual_seed(1))


def attention_of(block: Block, n: int, x: Tensor, mask: rg.Mask | None = None) -> Tensor:
    """The dense weights of layer ``n``, by `MultiHeadAttention.steps`."""
    hidden: Tensor = block.embed(x)
    for layer in block.layers[:n]:
        hidden = hidden + layer(hidden, mask=mask)
    return cast(rg.nn.MultiHeadAttention, block.layers[n]).steps(hidden, mask=mask).weights


OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "grouped, rotary": {"num_kv_heads": 2, "rope": rg.nn.RotaryEmbedding(4)},
    "one key head, sinks": {"num_kv_heads": 1, "sinks": True},
    "window, softcap": {"mask": rg.SlidingWindow(4), "score_mod": rg.Softcap(2.0)},
    "alibi": {"score_mod": rg.Alibi.for_heads(4)},
    "relative bias": {"score_mod": rg.RelativeBias(4)},
    "predicate by head": {"mask": rg.Causal() & rg.Predicate(lambda b, h, q, k: (q - k) % (h + 1) == 0)},
    "function by head": {"score_mod": rg.ScoreMod(lambda s, b, h, q, k: s + 0.1 * h * (q - k))},
}


@pytest.fixture(params=list(OPTIONS))
def block(request: pytest.FixtureRequest) -> Block:
    made = Block(**OPTIONS[request.param])
    for layer in made.layers:
        assert isinstance(layer, rg.nn.MultiHeadAttention)
        if layer.sinks is not None:
            nn.init.normal_(layer.sinks)
        if isinstance(layer.score_mod, rg.RelativeBias):
            nn.init.normal_(layer.score_mod.table)
    return made.eval()


def test_a_forward_gives_every_layer(block: Block) -> None:
    x = ids()
    unwatched = block(x)
    with rg.record(block, tokenizer=Words()) as rec:
        watched = block(x)
    torch.testing.assert_close(watched, unwatched)
    assert [(one.name, one.index, one.kind) for one in rec.layers] == [("layers.0", 0, "self"), ("layers.1", 1, "self")]
    for n, layer in enumerate(rec.layers):
        torch.testing.assert_close(layer.weights.dense(), attention_of(block, n, x))
    assert rec.tokens == [[f"<{n}>" for n in row] for row in x.tolist()]


def test_heads_and_queries_are_parts_of_the_whole(block: Block) -> None:
    x = ids()
    with rg.record(block, heads=[0, 1, 3], queries=slice(-5, None, 2), layers=[1]) as rec:
        block(x)
    [layer] = rec.layers
    assert (layer.index, layer.heads) == (1, (0, 1, 3))
    assert layer.rows.tolist() == [[7, 9, 11]]
    expected = attention_of(block, 1, x)[:, [0, 1, 3]][:, :, [7, 9, 11]]
    torch.testing.assert_close(layer.weights.dense(), expected)
    assert layer.value_norms is not None
    assert layer.value_norms.shape == (2, 3, 12)


@pytest.mark.parametrize("step", [1, 3])
def test_prompt_and_steps_are_one_map(block: Block, step: int) -> None:
    x = ids(11)
    caches: list[rg.cache.Cache] = [rg.cache.FullCache(), rg.cache.FullCache()]
    with torch.no_grad(), rg.record(block, tokenizer=Words()) as rec:
        block(x[:, :5], caches)
        for part in x[:, 5:].split(step, 1):
            block(part, caches)
    assert len(rec.runs) == 1
    for n, layer in enumerate(rec.layers):
        torch.testing.assert_close(layer.weights.dense(), attention_of(block, n, x))
        assert layer.mask == cast(rg.nn.MultiHeadAttention, block.layers[n]).mask or isinstance(layer.mask, rg.Dense)
    assert rec.tokens is not None
    assert [len(row) for row in rec.tokens] == [11, 11]


def test_forwards_are_runs_of_their_own() -> None:
    block, first, second = Block(), ids(12), ids(7)
    with rg.record(block) as rec:
        for x in (first, second, first):
            block(x)
    assert [run.layers[1].q.shape[2] for run in rec.runs] == [12, 7, 12]
    torch.testing.assert_close(rec.run(1).layers[1].weights.dense(), attention_of(block, 1, second))
    torch.testing.assert_close(rec.run(2).layers[0].q, rec.layers[0].q)


@pytest.mark.parametrize("make", [lambda: rg.cache.RollingCache(6), lambda: rg.cache.SinkCache(2, 6)])
def test_a_cache_that_drops_keys_loses_none_in_the_record(make: Callable[[], rg.cache.Cache]) -> None:
    block, x = Block(mask=rg.SlidingWindow(3)), ids(14)
    caches: list[rg.cache.Cache] = [make(), make()]
    with torch.no_grad(), rg.record(block) as rec:
        for part in x.split([5, 1, 1, 1, 2, 1, 1, 2], 1):
            block(part, caches)
    assert len(rec.runs) == 1
    for n, layer in enumerate(rec.layers):
        torch.testing.assert_close(layer.weights.dense(), attention_of(block, n, x))


def test_drafted_tokens_that_are_taken_back_leave_the_record() -> None:
    block, x = Block(), ids(12)
    caches = [rg.cache.FullCache(), rg.cache.FullCache()]
    with torch.no_grad(), rg.record(block, tokenizer=Words()) as rec:
        block(x[:, :6], list(caches))
        block(ids(3) + 0, list(caches))
        for cache in caches:
            cache.crop(7)
        # The first drafted token stays; the rest is another text.
        rest = torch.cat([x[:, :6], ids(3)[:, :1], x[:, 7:]], 1)
        block(rest[:, 7:], list(caches))
    assert len(rec.runs) == 1
    for n, layer in enumerate(rec.layers):
        torch.testing.assert_close(layer.weights.dense(), attention_of(block, n, rest))
    assert rec.tokens is not None
    assert rec.tokens[0] == [f"<{n}>" for n in rest[0].tolist()]


def test_memory_is_bounded_and_what_is_on_disk_is_the_same() -> None:
    block, x = Block(), ids(40)
    with torch.no_grad(), rg.record(block) as whole:
        block(x)
    limit = whole.nbytes // 3
    caches: list[rg.cache.Cache] = [rg.cache.FullCache(), rg.cache.FullCache()]
    with torch.no_grad(), rg.record(block, max_bytes=limit) as rec:
        for part in x.split([30, 1, 1, 8], 1):
            block(part, caches)
    for one, other in zip(rec.layers, whole.layers, strict=True):
        torch.testing.assert_close(one.weights.dense(), other.weights.dense())
        assert getattr(one.k, "regard_on_disk", False)


def test_keys_are_shared_and_not_copied() -> None:
    block, x = Block(), ids()
    with rg.record(block) as rec, rg.record(block, copy=True) as copied:
        block(x)
    assert rec.layers[0].k.data_ptr() != copied.layers[0].k.data_ptr()
    assert rec.layers[0].k.data_ptr() != rec.layers[0].q.data_ptr()


@pytest.mark.parametrize("inference", [False, True])
def test_what_was_changed_in_place_is_refused(*, inference: bool) -> None:
    """In inference mode tensors have no counter, and some tokens are looked at."""

    class Spoiler(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            out = attend(self, q, q, q)
            q.mul_(2)
            return out

    spoiler, refused = Spoiler(), pytest.raises(rg.StaleError, match=r"changed in place while.*copy=True")
    with torch.inference_mode(inference):
        q = torch.randn(1, 2, 50, 4)
        with refused, rg.record(spoiler):
            spoiler(q)
        with rg.record(spoiler, copy=True) as rec:
            spoiler(q.clone())
        assert rec.layers[0].q.shape == q.shape


def test_modules_of_torch_are_replaced_for_the_block() -> None:
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), 2).eval()
    before = [type(module) for module in model.modules()]
    x, memory = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    hide = nn.Transformer.generate_square_subsequent_mask(5)
    expected = model(x, memory, tgt_mask=hide)
    with rg.record(model) as rec:
        torch.testing.assert_close(model(x, memory, tgt_mask=hide), expected)
    assert [type(module) for module in model.modules()] == before
    assert [(one.index, one.kind) for one in rec.layers] == [(0, "self"), (0, "cross"), (1, "self"), (1, "cross")]
    assert rec.layers[1].weights.shape == (2, 2, 5, 7)
    decoder = model.layers[0]
    _, weights = decoder.self_attn(x, x, x, attn_mask=hide, average_attn_weights=False)
    torch.testing.assert_close(rec.layers[0].weights.dense(), weights)


def failing(model: nn.Module) -> None:
    model(torch.randn(1, 3, 8))
    raise ZeroDivisionError


def test_a_patch_is_undone_after_an_exception_and_by_the_last_of_two() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True).eval()
    with pytest.raises(ZeroDivisionError), rg.record(model) as rec:
        failing(model)
    assert type(model.self_attn) is nn.MultiheadAttention
    assert rec.layers[0].q.shape == (1, 2, 3, 4)
    with rg.record(model):
        with rg.record(model):
            pass
        assert type(model.self_attn) is not nn.MultiheadAttention
    assert type(model.self_attn) is nn.MultiheadAttention


def test_threads_record_their_own_calls() -> None:
    block = Block()
    found: dict[int, Layer] = {}
    barrier = threading.Barrier(2, timeout=30)

    def work(count: int) -> None:
        with rg.record(block) as rec:
            barrier.wait()
            block(ids(count))
            barrier.wait()
        found[count] = rec.layers[0]

    threads = [threading.Thread(target=work, args=(count,)) for count in (5, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {count: layer.q.shape[2] for count, layer in found.items()} == {5: 5, 9: 9}


def test_a_module_called_twice_in_a_forward_is_two_layers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = rg.nn.CausalAttention(8, 8, 16, 0.0)

        def forward(self, x: Tensor) -> Tensor:
            once: Tensor = self.attention(x)
            twice: Tensor = self.attention(once)
            return twice

    model = Shared()
    with rg.record(model) as rec:
        model(torch.randn(1, 5, 8))
        model(torch.randn(1, 6, 8))
    assert [layer.name for layer in rec.layers] == ["attention", "attention#2"]
    assert [run.layers[1].q.shape[2] for run in rec.runs] == [5, 6]


def test_a_repeated_forward_of_checkpointing_is_recorded_once() -> None:
    block, x = Block(backend="blockwise"), torch.randn(1, 5, 16, requires_grad=True)
    with rg.record(block) as rec:
        out = torch.utils.checkpoint.checkpoint(block.layers[0], x, use_reentrant=False)
        out.sum().backward()
    assert len(rec.runs) == 1


def test_a_compiled_model_is_recorded() -> None:
    block = Block()
    compiled = cast(nn.Module, torch.compile(block, backend="eager"))
    with rg.record(compiled) as rec:
        compiled(ids())
    assert [layer.name for layer in rec.layers] == ["layers.0", "layers.1"]


def test_progress_is_told() -> None:
    said: list[str] = []
    with rg.record(Block(), progress=said.append) as rec:
        pass
    block = Block()
    with rg.record(block, progress=said.append) as rec:
        block(ids())
    assert said[-1].startswith("recorded 2 layers, 12 tokens")
    assert repr(rec) == "<Record: 2 layers, 4 heads, 12 queries, 12 keys, 0.00691 MB>"


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"model": 3}, rg.KindError, "takes a torch.nn.Module"),
        ({"name": 3}, rg.KindError, "name= is what the model is called, a string: got 3"),
        ({"layers": [-1]}, rg.ArgumentError, "number from 0 on"),
        ({"layers": 1.5}, rg.KindError, "layers= takes numbers"),
        ({"heads": [-1]}, rg.ArgumentError, "from 0 on"),
        ({"heads": "all"}, rg.KindError, "heads= takes"),
        ({"queries": "all"}, rg.KindError, "queries= takes"),
        ({"max_bytes": -1}, rg.ArgumentError, "number of bytes"),
        ({"tokens": "abc"}, rg.ArgumentError, "takes words"),
        ({"model": nn.MultiheadAttention(4, 1)}, rg.ArgumentError, "this is one itself"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], error: type[Exception], match: str) -> None:
    given = {"model": nn.Identity(), **arguments}
    with pytest.raises(error, match=match), rg.record(**given):  # type: ignore[arg-type]
        pass


def test_a_head_that_is_not_there_is_refused() -> None:
    block = Block()
    with pytest.raises(rg.ArgumentError, match="head 7, and layer 0 has heads 0 … 3"), rg.record(block, heads=[7]):
        block(ids())


def test_nothing_recorded_says_why() -> None:
    with rg.record(nn.Linear(2, 2)) as rec:
        pass
    with pytest.raises(rg.ArgumentError, match="nothing was recorded"):
        rec.layers  # noqa: B018


@pytest.mark.parametrize(
    ("loaded", "name"),
    [
        ("org/small", "org/small"),
        ("/models/small", "small"),
        ("models/of/small", "small"),
        (".", Path.cwd().name),
        ("", "MultiHeadAttention"),
    ],
)
def test_a_model_is_called_as_it_was_loaded_and_never_by_its_whole_path(loaded: str, name: str) -> None:
    layer = rg.nn.MultiHeadAttention(4, 4, 4, 0.0, num_heads=1)
    layer.config = SimpleNamespace(_name_or_path=loaded)  # type: ignore[assignment]
    with rg.record(layer) as rec:
        assert rec.meta["model"] == name
    with rg.record(layer, name="mine") as rec:
        assert rec.meta["model"] == "mine"

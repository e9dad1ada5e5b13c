"""`regard.record`: a model's attention, recorded while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from regard._errors import ArgumentError, KindError, describe
from regard._observe import observing
from regard.recording.choice import Choice, Heads, Layers, Queries
from regard.recording.ids import Tokenizer, words
from regard.recording.layer import Layer
from regard.recording.recorded import Record, Run, Tokens, checked_tokens
from regard.recording.recorder import Recorder
from regard.recording.switch import switched, uncompiled


@contextmanager
def record(
    model: nn.Module,
    *,
    layers: Layers = None,
    heads: Heads = None,
    queries: Queries = None,
    tokenizer: Tokenizer | None = None,
    tokens: Sequence[str] | Sequence[Sequence[str]] | None = None,
    max_bytes: int | None = None,
    device: torch.device | str | None = None,
    copy: bool = False,
    name: str | None = None,
    progress: bool | Callable[[str], None] = False,
) -> Iterator[Record]:
    """Record queries, keys and logsumexp of ``model``'s attention inside the ``with`` block: all weights, lazily.

    Hugging Face models are switched to regard for the block and back, `torch.nn.MultiheadAttention` modules are
    replaced for it (`regard.replace`), `rg.nn` modules need nothing. Only calls in the thread that opens the block are
    recorded. Prompt and generated tokens become one map; forwards of their own become runs of their own.

    Queries and keys are kept by reference, without their gradients' graph. Keys of a cache that grows by new tensors
    are shared with it; from one that is written in place, only new keys are copied. What else is written in place while
    it is recorded is refused, by torch's counters; in inference mode, which has none, by a look at some tokens.

    Args:
        model: whose modules are recorded.
        layers: numbers of layers, names, or patterns such as ``"decoder.*"``; default: all.
        heads: numbers of query heads, for every layer or as ``{layer: heads}``; default: all.
        queries: positions of queries, as a slice such as ``slice(-64, None)`` or as numbers, negative ones counted from
            the last query of each call; default: all.
        tokenizer: whose ``decode([id])`` gives the words of the ids that the model is called with.
        tokens: the words themselves, where they are known.
        max_bytes: memory to hold at most; what is more goes to files in a temporary folder, from which it is read page
            by page. Default: no limit.
        device: where to keep everything, such as ``"cpu"``; default: where the model computes.
        copy: keep copies even of what nobody is known to write to.
        name: what pages and files call the model; default: the name it was loaded by, of a path its last part.
        progress: True to say on stderr what was recorded so far, or a function that is told.

    Yields:
        A `Record`.

    Raises:
        KindError: no module, arguments of other types.
        ArgumentError: a choice that names nothing.
        UnsupportedError: a Hugging Face model that computes attention in code of its own.

    >>> layer = rg.nn.MultiHeadAttention(16, 16, 32, 0.0, num_heads=4)
    >>> with record(layer, heads=[1, 3], queries=slice(-2, None)) as rec:
    ...     out = layer(torch.randn(1, 10, 16))
    >>> rec.layers[0]
    <Layer 0 'MultiHeadAttention', self: q float32 (1, 2, 2, 4), k (1, 2, 10, 4), mask=Causal(), heads=[1, 3]>
    """
    if not isinstance(model, nn.Module):
        raise KindError(f"record takes a torch.nn.Module: got {describe(model)}.")
    if max_bytes is not None and (not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 0):
        raise ArgumentError(f"max_bytes= is a number of bytes, or None for no limit: got {describe(max_bytes)}.")
    choice = Choice(layers, heads, queries)
    if name is not None and not isinstance(name, str):
        raise KindError(f"name= is what the model is called, a string: got {describe(name)}.")
    given = checked_tokens(tokens)
    rec = Record(_facts(model, name))
    with ExitStack() as stack:
        rec.skipped.update(stack.enter_context(switched(model)))
        stack.enter_context(uncompiled(model))
        where = None if device is None else torch.device(device)
        told = _say if progress is True else progress or None
        recorder = Recorder(model, choice, copy=copy, device=where, max_bytes=max_bytes, progress=told)
        rec._source = lambda: _runs(recorder, tokenizer, given)
        stack.enter_context(recorder.ids.hooked(model))
        stack.enter_context(recorder.forwards_of(model))
        stack.enter_context(observing(recorder))
        yield rec
    if told is _say:
        print(file=sys.stderr)
    if recorder.heard:
        rec._runs, rec._source, rec._held = _runs(recorder, tokenizer, given), None, recorder.folder


def _runs(recorder: Recorder, tokenizer: Tokenizer | None, given: Tokens | None) -> tuple[Run, ...]:
    return tuple(_run(recorder, n, tuple(layers), tokenizer, given) for n, layers in enumerate(recorder.runs()))


def _run(
    recorder: Recorder, number: int, layers: tuple[Layer, ...], tokenizer: Tokenizer | None, given: Tokens | None
) -> Run:
    source, target = (_fitting(recorder.ids.of(side, number), layers, side) for side in ("encoder", "decoder"))
    crossed = source is not None
    ids, query_ids = (source, target) if crossed else (target, None)
    known = [None if one is None or tokenizer is None else words(one, tokenizer) for one in (ids, query_ids)]
    return Run(layers, given or known[0], known[1], ids, query_ids)


def _fitting(ids: Tensor | None, layers: tuple[Layer, ...], side: str) -> Tensor | None:
    """Ids, if there are as many as the layers of their side have keys."""
    lengths = {one.k.shape[2] for one in layers if one.kind in (side, "self")}
    return ids if ids is not None and lengths <= {ids.shape[1]} else None


def _facts(model: nn.Module, name: str | None) -> dict[str, object]:
    dtype = next((str(p.dtype).removeprefix("torch.") for p in model.parameters()), None)
    return {"model": name or _name(model), **({} if dtype is None else {"dtype": dtype})}


def _name(model: nn.Module) -> str:
    """The name that a model was loaded by, such as ``org/name``; of a folder or file only its own name."""
    loaded = str(getattr(getattr(model, "config", None), "_name_or_path", None) or "")
    path = Path(loaded)
    local = path.is_absolute() or len(path.parts) > 2 or path.exists()
    return (path.resolve().name if local else loaded) if loaded else type(model).__name__


def _say(text: str) -> None:
    print(f"\r{text}", end="", file=sys.stderr, flush=True)

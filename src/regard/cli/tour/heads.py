"""Sections on several heads, on the fast path, and on where to go from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text
from torch import Tensor

from regard import nn
from regard.cli.pictures import Cells, Numbers, Table
from regard.cli.tour.lesson import Lesson, code, figure, say
from regard.masks import Causal, SlidingWindow

_FAST = ("torch", "blockwise")


def several_heads(lesson: Lesson) -> Iterator[RenderableType]:
    """Heads one after another, then all in one product."""
    length = len(lesson.tokens)
    torch.manual_seed(123)
    wrapper = nn.MultiHeadAttentionWrapper(3, 2, length, 0.0, num_heads=2)
    steps = wrapper.steps(lesson.x)
    yield say("""One softmax a token can only look one way. Several [bold]heads[/bold], each with its own queries,
        keys and values, look several ways at once: one may follow the grammar, another the names. Their results are
        put side by side.""")
    yield code(f"wrapper = rg.nn.MultiHeadAttentionWrapper(3, 2, {length}, 0.0, num_heads=2)")
    pictures = [Cells(steps.weights[h], lesson.tokens, steps.allowed[h]) for h in range(2)]
    yield figure(Columns([Group(f"head {h}", picture) for h, picture in enumerate(pictures)], padding=(0, 4)))
    for h in range(2):
        yield say(f"The weights of head {h}:")
        yield figure(Numbers(steps.weights[h], lesson.tokens, lesson.tokens, allowed=steps.allowed[h], heat=True))
    yield say("Two numbers a head, four a token:")
    yield figure(Numbers(steps.output, lesson.tokens, ("head 0", "", "head 1", "")))

    multi = _stacked(wrapper)
    difference = _difference(multi(lesson.x), wrapper(lesson.x))
    yield say(f"""[bold]MultiHeadAttention[/bold] does all heads in one product: the heads' matrices stacked, the
        result cut into heads, and a last linear layer, out_proj, that mixes them. With stacked matrices and an
        out_proj that changes nothing it equals the wrapper; largest difference [bold]{difference:.0e}[/bold]. On
        its own, under seed 123:""")
    torch.manual_seed(123)
    own = nn.MultiHeadAttention(3, 2, length, 0.0, num_heads=2)
    yield code(f"torch.manual_seed(123); rg.nn.MultiHeadAttention(3, 2, {length}, 0.0, num_heads=2)")
    yield figure(Numbers(own(lesson.x), lesson.tokens, ("1", "2")))


def fast_path(lesson: Lesson) -> Iterator[RenderableType]:
    """Every module against its own definition, on every backend."""
    length = len(lesson.tokens)
    ladder: list[Callable[[], torch.nn.Module]] = [
        nn.SimpleSelfAttention,
        lambda: nn.SelfAttentionV1(3, 2),
        lambda: nn.SelfAttentionV2(3, 2),
        lambda: nn.CausalAttention(3, 2, length, 0.0),
        lambda: nn.MultiHeadAttentionWrapper(3, 2, length, 0.0, 2),
        lambda: nn.MultiHeadAttention(3, 2, length, 0.0, 2),
    ]
    yield say("""All of the numbers above came from the definition: every score written down, then softmax, then the
        sum. Real models cannot afford that: 100,000 tokens have ten thousand million scores. The modules themselves
        compute with [bold]regard.attention[/bold], which never holds them all. Is it the same? The largest
        difference between each module on each backend and its definition:""")
    rows = []
    for make in ladder:
        torch.manual_seed(123)
        module = make()
        exact = module.steps(lesson.x).output  # type: ignore[operator]
        rows.append([type(module).__name__])
        for name in _FAST:
            _choose(module, name)
            rows[-1].append(f"{_difference(module(lesson.x), exact):.0e}")
    yield figure(Table(["module", *_FAST], rows))
    yield say("""Differences of 1e-07 are the rounding of 32-bit numbers: these are [bold]the same numbers from the
        fast path[/bold]. And the last module's output once more, from the backend that regard chooses by itself:""")
    _choose(module, None)
    yield figure(Numbers(module(lesson.x), lesson.tokens, ("1", "2")))


def next_steps(lesson: Lesson) -> Iterator[RenderableType]:
    """What to try next."""
    length = len(lesson.tokens)
    yield say("Masks combine with &, | and ~. A window of two tokens back, never forward:")
    yield code(f"print((rg.Causal() & rg.SlidingWindow(2)).show({length}, {length}))")
    mask = Causal() & SlidingWindow(2)
    yield figure(Text(mask.show(length, length), no_wrap=True, overflow="ellipsis"))
    yield say("The same rule over a million tokens; a mask is a rule, not a table, so this costs nothing:")
    yield code("(rg.Causal() & rg.SlidingWindow(2)).blocks(1_000_000, 1_000_000)")
    counts = mask.blocks(1_000_000, 1_000_000).counts()
    yield say(f"[dim]{', '.join(f'{count:,} {kind.name}' for kind, count in counts.items())} blocks of 64 x 64[/dim]")
    yield say("What to try next:")
    for line in (
        'regard tour --text "any words you like"',
        "regard tour --section 9 --pause",
        'regard explain --q-len 4096 --mask "Causal() & SlidingWindow(255)"',
        "regard info",
        "python examples/tutorial_leak.py",
    ):
        yield code(line)
    yield say("And in Python, grouped heads with a window and softly capped scores, as recent models have them:")
    yield code("rg.nn.MultiHeadAttention(512, 512, 4096, 0.0, num_heads=8, num_kv_heads=2,")
    yield code("    mask=rg.Causal() & rg.SlidingWindow(255), score_mod=rg.Softcap(30.0))")


def _stacked(wrapper: nn.MultiHeadAttentionWrapper) -> nn.MultiHeadAttention:
    """The module with the wrapper's heads side by side."""
    heads = [head for head in wrapper.heads if isinstance(head, nn.CausalAttention)]
    width = sum(head.d_out for head in heads)
    multi = nn.MultiHeadAttention(heads[0].d_in, width, heads[0].context_length, 0.0, len(heads), out_bias=False)
    with torch.no_grad():
        for name in ("W_query.weight", "W_key.weight", "W_value.weight"):
            multi.get_parameter(name).copy_(torch.cat([head.get_parameter(name) for head in heads]))
        multi.out_proj.weight.copy_(torch.eye(width))
    return multi


def _choose(module: torch.nn.Module, backend: str | None) -> None:
    for part in module.modules():
        if hasattr(part, "backend"):
            part.backend = backend  # type: ignore[assignment]


def _difference(left: Tensor, right: Tensor) -> float:
    return float((left - right).detach().abs().max())

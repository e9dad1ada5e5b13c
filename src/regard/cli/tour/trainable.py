"""Sections on what is learned: queries, keys and values, scaling, linear layers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rich.console import RenderableType

from regard import nn
from regard.cli.pictures import Bars, Numbers, Table
from regard.cli.tour.lesson import Lesson, code, figure, number, say

_IN, _OUT = ("x1", "x2", "x3"), ("1", "2")


def queries_keys_values(lesson: Lesson) -> Iterator[RenderableType]:
    """Three learned matrices."""
    torch.manual_seed(123)
    module = nn.SelfAttentionV1(3, 2)
    steps = module.steps(lesson.x)
    yield say("""So far a token's vector played three parts at once. Give each part its own learned matrix: what a
        token asks for, its [bold]query[/bold]; what it can be found by, its [bold]key[/bold]; what it hands over,
        its [bold]value[/bold]. Think of a library: the query is what you type, the key is the title on the spine,
        the value is what is written inside.""")
    yield code("torch.manual_seed(123); v1 = rg.nn.SelfAttentionV1(d_in=3, d_out=2)")
    matrices = torch.cat([module.W_query, module.W_key, module.W_value], 1)
    yield figure(Numbers(matrices, _IN, ("W_query", "", "W_key", "", "W_value", "")))
    i = lesson.chosen
    yield say(f"The query of {lesson.word} is its vector times W_query:")
    for n in range(2):
        pairs = zip(lesson.x[i].tolist(), module.W_query[:, n].tolist(), strict=True)
        products = " + ".join(f"{a:.2f}·{b:.4f}" for a, b in pairs)
        yield code(f"{products} = {number(float(steps.queries[i, n]))}")
    yield say("All keys and all values:")
    both = torch.cat([steps.keys, steps.values], -1)
    yield figure(Numbers(both, lesson.tokens, ("key 1", "key 2", "value 1", "value 2")))


def scaling(lesson: Lesson) -> Iterator[RenderableType]:
    """Why scores are divided by the square root of the key's size."""
    torch.manual_seed(123)
    steps = nn.SelfAttentionV1(3, 2).steps(lesson.x)
    i, plain = lesson.chosen, steps.scores * 2**0.5
    yield say("""A dot product adds up one term a number, so longer vectors give larger scores; with large scores
        softmax gives everything to one token and stops learning. Dividing by the square root of the vectors' size
        keeps the scores' spread at 1. Random vectors show it:""")
    generator, rows = torch.Generator().manual_seed(0), []
    for size in (4, 64, 1024):
        q, k = torch.randn(2, 1000, size, generator=generator).unbind()
        products = (q * k).sum(-1)
        rows.append([str(size), f"{float(products.std()):.1f}", f"{float(products.std()) / size**0.5:.2f}"])
    yield figure(Table(["numbers a vector", "spread of q·k", "spread of q·k / √size"], rows))
    yield say(f"For {lesson.word}, with queries and keys of 2 numbers:")
    rows = [
        [token, number(float(a)), number(float(b)), number(float(w))]
        for token, a, b, w in zip(lesson.tokens, plain[i], steps.scores[i], steps.weights[i], strict=True)
    ]
    yield figure(Table(["token", "q·k", "q·k / √2", "weight"], rows))
    context = ", ".join(map(number, steps.context[i].tolist()))
    yield say(f"The weighted sum of the values is its context vector: [bold]{context}[/bold]. For all tokens:")
    yield figure(Numbers(steps.context, lesson.tokens, _OUT))
    yield code("weights = torch.softmax(q @ k.T / k.shape[-1] ** 0.5, dim=-1)")


def linear_layers(lesson: Lesson) -> Iterator[RenderableType]:
    """What `torch.nn.Linear` computes."""
    torch.manual_seed(123)
    layer = torch.nn.Linear(3, 2)
    x, y = lesson.x[lesson.chosen], layer(lesson.x[lesson.chosen])
    yield say("""In practice the three matrices are [bold]torch.nn.Linear[/bold] layers: they start from better
        numbers, and may add a bias. A linear layer keeps its matrix the other way round, one row an output:""")
    yield code("y = x Wᵀ + b")
    yield figure(Numbers(torch.cat([layer.weight, layer.bias[:, None]], 1), ("y1", "y2"), (*_IN, "b")))
    yield say(f"By hand, for {lesson.word}:")
    for n in range(2):
        products = " + ".join(f"{a:.2f}·({b:.4f})" for a, b in zip(x.tolist(), layer.weight[n].tolist(), strict=True))
        yield code(f"y{n + 1} = {products} + ({float(layer.bias[n]):.4f}) = {number(float(y[n]))}")
    difference = float((y - (x @ layer.weight.T + layer.bias)).abs().max())
    yield say(f"layer(x) and x @ layer.weight.T + layer.bias differ by [bold]{difference:.0e}[/bold].")

    torch.manual_seed(789)
    v2 = nn.SelfAttentionV2(3, 2)
    v1 = nn.SelfAttentionV1(3, 2)
    for name in ("W_query", "W_key", "W_value"):
        v1.get_parameter(name).data = v2.get_parameter(f"{name}.weight").data.T
    difference = float((v1(lesson.x) - v2(lesson.x)).abs().max())
    yield say("So the module with linear layers is the one with matrices, transposed:")
    yield code("torch.manual_seed(789); v2 = rg.nn.SelfAttentionV2(3, 2)")
    yield code("v1.W_query.data = v2.W_query.weight.data.T   # and W_key, W_value")
    yield say(f"The largest difference between v1(x) and v2(x) is [bold]{difference:.0e}[/bold]. Its output:")
    yield figure(Numbers(v2(lesson.x), lesson.tokens, _OUT))
    yield say(f"Its weights are nearly even, as nothing is learned yet. {lesson.word} looks like this:")
    yield figure(Bars(v2.steps(lesson.x).weights[lesson.chosen].detach(), lesson.tokens))

"""Sections on attention without any weights: vectors, dot products, softmax, weighted sums."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rich.console import RenderableType
from rich.text import Text

from regard import nn
from regard.cli.pictures import Bars, Numbers, Table, label
from regard.cli.tour.lesson import Lesson, code, figure, number, say

_DIMS = ("x1", "x2", "x3")


def vectors(lesson: Lesson) -> Iterator[RenderableType]:
    """Tokens as vectors."""
    yield say(f"""A model cannot multiply words, so each token becomes a list of numbers, its [bold]vector[/bold].
        Real models learn vectors of thousands of numbers; here are {len(lesson.tokens)} tokens with three numbers
        each.""")
    yield figure(Numbers(lesson.x, lesson.tokens, _DIMS))
    if lesson.from_book:
        yield say("""These are the six tokens of chapter 3 of S. Raschka's [italic]Build a Large Language Model
            (From Scratch)[/italic], and the numbers below are the ones it prints.""")
    else:
        yield say("""The numbers were drawn at random, from one seed; the same word has the same vector wherever it
            stands.""")
    if lesson.left_out:
        yield say(f"""[dim]The tour shows every number, so it took the first {len(lesson.tokens)} words of your text
            and left out {lesson.left_out}.[/dim]""")
    yield say("""Attention lets every token look at the others and mix what it finds into itself. What comes out is
        as many vectors as went in, each knowing something of its neighbours: [bold]context vectors[/bold].""")


def dot_products(lesson: Lesson) -> Iterator[RenderableType]:
    """The scores of one query, product by product."""
    query = lesson.x[lesson.chosen]
    yield say(f"""How much should {lesson.word} look at each token? Multiply the two vectors number by number and
        add up: the [bold]dot product[/bold]. Vectors that point the same way give a large one. {lesson.word} is the
        one who asks, the [bold]query[/bold]; the results are its [bold]scores[/bold].""")
    width = max(min(max(map(len, lesson.tokens)), 10), 4)
    lines = []
    for token, x in zip(lesson.tokens, lesson.x, strict=True):
        products = " + ".join(f"{a:.2f}·{b:.2f}" for a, b in zip(query.tolist(), x.tolist(), strict=True))
        lines.append(f"{label(token, width)}  {products} = {number(float(query @ x))}")
    yield figure(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"))
    yield say("In Python, for all tokens at once:")
    yield code("scores = x @ query")


def softmax(lesson: Lesson) -> Iterator[RenderableType]:
    """From the scores of one query to its weights."""
    scores = lesson.x @ lesson.x[lesson.chosen]
    powers = scores.exp()
    weights = torch.softmax(scores, 0)
    yield say("""Scores become shares of one whole by [bold]softmax[/bold]: raise e to each score, so that all are
        positive, then divide by their sum. These shares are the [bold]attention weights[/bold].""")
    rows = [
        [token, number(s), number(e), number(w)]
        for token, s, e, w in zip(lesson.tokens, *(t.tolist() for t in (scores, powers, weights)), strict=True)
    ]
    total = ["sum", "", number(float(powers.sum())), number(float(weights.sum()))]
    yield figure(Table(["token", "score s", "e^s", "weight"], [*rows, total]))
    yield say(f"So {lesson.word} looks like this at the others:")
    yield figure(Bars(weights, lesson.tokens))
    yield say("""Dividing the scores by their own sum would also give shares, but it breaks when scores are
        negative; softmax never does, and it can be trained through.""")


def weighted_sum(lesson: Lesson) -> Iterator[RenderableType]:
    """The context vector of one query."""
    weights = torch.softmax(lesson.x @ lesson.x[lesson.chosen], 0)
    parts = weights[:, None] * lesson.x
    yield say(f"""Now mix: take each token's vector, times its weight, and add them up. The sum is the context
        vector of {lesson.word}.""")
    rows = [
        [token, number(float(w)), "  ".join(f"{v:.2f}" for v in x.tolist()), "  ".join(map(number, part.tolist()))]
        for token, w, x, part in zip(lesson.tokens, weights, lesson.x, parts, strict=True)
    ]
    total = ["sum", number(float(weights.sum())), "", "  ".join(map(number, parts.sum(0).tolist()))]
    yield figure(Table(["token", "weight", "vector", "weight · vector"], [*rows, total]))
    yield code("context = weights @ x")


def all_at_once(lesson: Lesson) -> Iterator[RenderableType]:
    """Every query at once: three lines, and the first module."""
    steps = nn.SimpleSelfAttention().steps(lesson.x)
    yield say("""Every token asks in its turn, and one matrix product asks for all of them. Row by row the query,
        column by column the token it looks at. The scores:""")
    yield figure(Numbers(steps.scores, lesson.tokens, lesson.tokens))
    yield say("The weights, each row a softmax, each row sums to 1; warm cells are large:")
    yield figure(Numbers(steps.weights, lesson.tokens, lesson.tokens, heat=True))
    yield say("The context vectors:")
    yield figure(Numbers(steps.context, lesson.tokens, _DIMS))
    yield say("This is all of self-attention without weights. Three lines, or the first module of the ladder:")
    yield code("weights = torch.softmax(x @ x.T, dim=-1)")
    yield code("context = weights @ x")
    yield code("context = rg.nn.SimpleSelfAttention()(x)")

"""Sections on what must not be seen: the causal mask, the leak, dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor

from regard import nn
from regard._attention import attention
from regard.cli.pictures import Cells, Numbers, Table
from regard.cli.tour.lesson import Lesson, code, figure, say
from regard.masks import Causal


def causal_mask(lesson: Lesson) -> Iterator[RenderableType]:
    """No token sees its future."""
    length = len(lesson.tokens)
    torch.manual_seed(789)
    steps = nn.CausalAttention(3, 2, context_length=length, dropout=0.0).steps(lesson.x)
    yield say("""A language model predicts the next word, so while it learns, no token may see the words that come
        after it. A [bold]mask[/bold] says who may look at whom. In regard a mask is a value, and ■ (True) always
        means [bold]may attend[/bold]:""")
    yield code(f"print(rg.Causal().show({length}, {length}))")
    yield figure(Text(Causal().show(length, length), no_wrap=True, overflow="ellipsis"))
    yield say("""Hidden scores become -∞ [bold]before[/bold] the softmax. e to the power of -∞ is 0, so a hidden
        token gets no weight, and the sum that divides the row counts only what is visible. The scores:""")
    yield figure(Numbers(steps.scores, lesson.tokens, lesson.tokens, allowed=steps.allowed))
    yield say("The weights; each row still sums to 1:")
    yield figure(Numbers(steps.weights, lesson.tokens, lesson.tokens, allowed=steps.allowed, heat=True))
    yield say("The same as a picture:")
    yield figure(Cells(steps.weights, lesson.tokens, steps.allowed))
    yield code(f"causal = rg.nn.CausalAttention(3, 2, context_length={length}, dropout=0.0)")
    yield code("print(causal.steps(x))   # every number on the way")


def leak(lesson: Lesson) -> Iterator[RenderableType]:
    """The mistake of masking after the softmax, measured."""
    length = len(lesson.tokens)
    torch.manual_seed(123)
    module = nn.CausalAttention(3, 2, context_length=length, dropout=0.0)
    with torch.no_grad():
        module.W_query.weight.mul_(4)
        module.W_key.weight.mul_(4)
    changed = lesson.x.clone()
    changed[-1] = 10 * (1 - changed[-1])
    wrong = (_softmax_mask_softmax(module, changed) - _softmax_mask_softmax(module, lesson.x)).abs().amax(-1)
    right = (module(changed) - module(lesson.x)).abs().amax(-1)
    yield say("""A tutorial that many have read does it in another order: softmax, then mask, then softmax again.
        Its weights look right: zeros in the future, rows that sum to 1. But its first softmax divided by a sum over
        [bold]all[/bold] tokens, so what the past is given depends on the future. Watch it leak. Replace the last
        token by another one and see how far every output moves:""")
    rows = [[t, f"{a:.6f}", f"{b:.6f}"] for t, a, b in zip(lesson.tokens, wrong.tolist(), right.tolist(), strict=True)]
    yield figure(Table(["output of", "softmax, mask, softmax", "mask, softmax"], rows))
    past = float(wrong[:-1].max()) if length > 1 else 0.0
    ours = float(right[:-1].max()) if length > 1 else 0.0
    yield say(f"""The past moves by up to [bold]{past:.4f}[/bold] in the tutorial's version and by
        [bold]{ours:.4f}[/bold] in ours. Only the last token may move, as it is the one that changed. (The first
        never leaks: it sees one token, whose weight is 1 whatever happens.) No shape and no sum betrays this
        mistake, so test for it:""")
    yield code("from regard.testing import assert_causal")
    yield code("assert_causal(module, x[None])   # a batch of one")
    yield say("The file examples/tutorial_leak.py shows this and four more of that tutorial's mistakes, mended.")


def _softmax_mask_softmax(module: nn.CausalAttention, x: Tensor) -> Tensor:
    steps = module.steps(x)
    first = torch.softmax(steps.scores, -1).where(steps.allowed, -torch.inf)
    return torch.softmax(first / math.sqrt(steps.keys.shape[-1]), -1) @ steps.values


def dropout(lesson: Lesson) -> Iterator[RenderableType]:
    """Dropping weights in training, in torch's way and in regard's."""
    length = len(lesson.tokens)
    torch.manual_seed(123)
    picture = torch.nn.Dropout(0.5)(torch.ones(length, length))
    yield say("""While it trains, a model forgets some weights at random, so that it does not lean on a single
        token: [bold]dropout[/bold]. At 0.5 half of them become 0, and the others are doubled, so that the mean
        stays. A matrix of ones through torch.nn.Dropout under seed 123:""")
    yield code(f"torch.manual_seed(123); torch.nn.Dropout(0.5)(torch.ones({length}, {length}))")
    yield figure(Cells(picture, lesson.tokens))
    yield figure(Numbers(picture, lesson.tokens, lesson.tokens))
    yield say("""nn.Dropout draws one random number after another, so the weights must all lie there in order. A
        fast kernel never holds them all. In regard a hash of the seed and of the weight's own place (batch, head,
        row, column) decides, so every backend drops the same weights in any order, and backward need not remember
        which. The causal weights after dropout (values of 1 on the diagonal bring them to light):""")
    torch.manual_seed(789)
    steps = nn.CausalAttention(3, 2, length, 0.0).steps(lesson.x)
    q, k, v = steps.queries.detach(), steps.keys.detach(), torch.eye(length)
    dropped = {}
    for name in ("reference", "blockwise"):
        torch.manual_seed(123)
        dropped[name] = attention(q, k, v, mask=Causal(), dropout_p=0.5, backend=name)
    yield code("rg.attention(q, k, torch.eye(L), mask=rg.Causal(), dropout_p=0.5)")
    yield figure(Numbers(dropped["reference"], lesson.tokens, lesson.tokens, allowed=steps.allowed, heat=True))
    difference = float((dropped["reference"] - dropped["blockwise"]).abs().max())
    yield say(f"""Two backends that compute in quite different orders, under one seed, differ by
        [bold]{difference:.0e}[/bold]. Dropout happens in training only: module.eval() turns it off.""")

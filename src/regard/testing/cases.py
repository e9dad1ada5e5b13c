"""Seeded cases for holding a backend to the oracle, drawn from what the backend declares it can do.

A case is a whole attention call with everything that users do to one: any mask expression, any score changes, sinks,
dropout, prime and unequal lengths, grouped heads, values of another width, strided and expanded operands, operands of
different rank, explicit positions, rows that see nothing, lengths and batches of 0, not-a-number where nobody looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from regard._attention import attention
from regard._call import DTYPES, Call, make_call
from regard._coordinates import Frame
from regard._errors import describe
from regard._inspect import inspect
from regard.backends.base import Capabilities
from regard.masks import Causal, Dense, Mask, Padding
from regard.testing.expressions import random_bits, random_mask, random_normal, random_positions, random_score_mods

HEADS = ((1, 1), (2, 2), (3, 3), (2, 1), (3, 1), (4, 2), (6, 2), (6, 3))
"""Query heads and key/value heads: plain, one for all, and groups of 2 and 3."""

LENGTHS = (1, 2, 3, 5, 7, 11, 13, 17)
LONG = (67, 131, 197, 257, 293)
"""Tokens: small and prime, or enough to fill several blocks of a backend that works block by block."""

WIDTHS = (1, 3, 4, 5, 8, 13, 16)

ODD = (math.nan, math.inf, -math.inf)


@dataclass(frozen=True, eq=False)
class Case:
    """One attention call with all that its gradients go to.

    Attributes:
        seed: makes the case again, and is torch's seed when its dropout draws.
        operands: q, k and v, each a view of some tensor.
        layouts: what kind of view each is.
        arguments: the keyword arguments of `regard.attention`.
        dout: gradient of the loss with respect to out.
        dlse: gradient of the loss with respect to lse.
    """

    seed: int
    operands: dict[str, Tensor]
    layouts: dict[str, str]
    arguments: dict[str, Any]
    dout: Tensor
    dlse: Tensor

    @property
    def wrt(self) -> dict[str, Tensor]:
        """Every tensor that gets a gradient, by name."""
        named = dict(self.operands)
        if self.arguments["sinks"] is not None:
            named["sinks"] = self.arguments["sinks"]
        for n, mod in enumerate(self.arguments["score_mod"]):
            for tensor in mod.tensors():
                if tensor.requires_grad:
                    named[f"{type(mod).__name__}[{n}]"] = tensor
        return named

    def call(self) -> Call:
        """The checked call, lse wanted; dropout draws the same seed every time."""
        torch.manual_seed(self.seed)
        q, k, v = self.operands.values()
        return make_call(q, k, v, **self.arguments).with_(wants_lse=True).seeded().seeded()

    def __str__(self) -> str:
        words = [f"{name} {describe(x)} {self.layouts[name]}" for name, x in self.operands.items()]
        for name, value in self.arguments.items():
            if value is not None and value != () and not (name == "dropout_p" and value == 0):
                words.append(f"{name}={describe(value) if isinstance(value, Tensor) else repr(value)}")
        return f"case {self.seed}: " + ", ".join(words)


def random_operands(
    heads: int = 2, kv_heads: int = 2, q_len: int = 7, k_len: int = 11, width: int = 5, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a small call from torch's default generator, with values of width 3."""
    return (
        torch.randn(batch, heads, q_len, width),
        torch.randn(batch, kv_heads, k_len, width),
        torch.randn(batch, kv_heads, k_len, 3),
    )


def random_gradients(backend: str, tensors: list[Tensor], *, lse: bool, **arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of a random loss of out (and lse, if ``lse``) with respect to ``tensors``: q, k, v, then others."""
    q, k, v = tensors[:3]
    if lse:
        seen = inspect(q, k, v, backend=backend, **arguments)
        outputs = [seen.out, seen.lse]
    else:
        outputs = [attention(q, k, v, backend=backend, **arguments)]
    return torch.autograd.grad(outputs, tensors, [torch.randn_like(x) for x in outputs])


def make_case(seed: int, capabilities: Capabilities | None = None) -> Case:
    """The case of this number. What ``capabilities`` do not claim is drawn rarely, to see it refused."""
    rng = Random(seed)
    capabilities = capabilities or Capabilities()

    def drawn(claimed: bool, chance: float) -> bool:  # noqa: FBT001
        return rng.random() < (chance if claimed else 0.02)

    dtype = rng.choice(capabilities.dtypes if drawn(bool(capabilities.dtypes), 0.97) else DTYPES)
    simple = rng.random() < 0.3
    (heads, kv_heads), lead = rng.choice(HEADS), _lead(rng)
    q_len, k_len = _lengths(rng)
    if lead is None:
        heads, kv_heads = 1, 1
    batch = math.prod(lead or ())
    q_positions = k_positions = None
    if not simple and rng.random() < 0.25:
        q_positions = random_positions(rng, q_len, batch, reach=3) if rng.random() < 0.8 else None
        k_positions = random_positions(rng, k_len, batch, reach=3) if rng.random() < 0.8 else None
    frame = Frame.of(batch, heads, q_len, k_len, q_positions, k_positions)

    width, v_width = rng.choice(WIDTHS), rng.choice(WIDTHS)
    v_width = width if rng.random() < 0.5 else v_width
    shapes = {"q": (heads, q_len, width), "k": (kv_heads, k_len, width), "v": (kv_heads, k_len, v_width)}
    # At least one operand has all the leading dims.
    whole = rng.choice(("q", "k", "v"))
    made = {name: _operand(rng, lead, shape, dtype, whole=name == whole) for name, shape in shapes.items()}
    operands, layouts = {name: x for name, (x, _) in made.items()}, {name: layout for name, (_, layout) in made.items()}
    mask = None
    if drawn(capabilities.masks, 0.85):
        mask = _simple_mask(rng, frame) if simple else random_mask(rng, frame)
    arguments: dict[str, Any] = {"mask": mask, "score_mod": (), "scale": None, "dropout_p": 0.0, "sinks": None}
    arguments |= {"q_positions": q_positions, "k_positions": k_positions}
    if rng.random() < 0.3:
        arguments["scale"] = rng.choice([0.0, 0.3, 1.7, -0.6])
    if not simple:
        if drawn(capabilities.score_mods, 0.6):
            arguments["score_mod"] = random_score_mods(rng, frame)
        if drawn(capabilities.sinks, 0.25):
            sinks = random_normal(rng, (heads,), rng.choice([torch.float32, torch.bfloat16, torch.float64]))
            arguments["sinks"] = sinks.requires_grad_()
        if drawn(capabilities.dropout, 0.25):
            arguments["dropout_p"] = rng.choice([0.1, 0.37, 0.5])
    if mask is not None and rng.random() < 0.3:
        _poison(
            rng, mask, frame, lead, [x for name, x in operands.items() if name != "q" and layouts[name] != "expanded"]
        )
    rows = (q_len,) if max(x.ndim for x in operands.values()) == 2 else (*(lead or ()), heads, q_len)
    dout = random_normal(rng, (*rows, v_width), dtype)
    dlse = random_normal(rng, rows, torch.float64 if dtype == torch.float64 else torch.float32)
    return Case(seed, operands, layouts, arguments, dout, dlse)


def _lead(rng: Random) -> tuple[int, ...] | None:
    """The dims before heads: none of two dims, of three, of four (now and then empty), of five."""
    return rng.choice([None, (), (1,), (2,), (3,), (2,), (2, 2), (1, 3), (0,) if rng.random() < 0.3 else (2,)])


def _lengths(rng: Random) -> tuple[int, int]:
    chance = rng.random()
    if chance < 0.03:
        return rng.choice(LONG), rng.choice(LONG)
    if chance < 0.07:
        return rng.choice([(0, 3), (5, 0), (0, 0)])
    if chance < 0.3:
        return (rng.choice(LENGTHS),) * 2
    return rng.choice(LENGTHS), rng.choice(LENGTHS)


def _simple_mask(rng: Random, frame: Frame) -> Mask | None:
    """A mask that a fixed kernel can take."""
    match rng.randrange(4):
        case 0:
            return None
        case 1:
            return Causal()
        case 2:
            return Padding(torch.tensor([rng.randint(0, frame.k_len) for _ in range(frame.batch)], dtype=torch.int64))
        case _:
            return Dense(random_bits(rng, (frame.batch, frame.heads, frame.q_len, frame.k_len)))


def _operand(
    rng: Random, lead: tuple[int, ...] | None, shape: tuple[int, ...], dtype: torch.dtype, *, whole: bool
) -> tuple[Tensor, str]:
    """A view in one of the layouts that operands come in; dims before heads may be 1 or, from the left, missing."""
    heads, length, width = shape
    dims = lead or ()
    if not whole:
        dims = () if rng.random() < 0.2 else tuple(n if rng.random() < 0.8 else 1 for n in dims)
    tail: tuple[int, ...] = (heads, length, width)
    if lead is None or (not dims and heads == 1 and rng.random() < 0.5):
        tail = (length, width)
    layouts: list[tuple[str, tuple[int, ...], Callable[[Tensor], Tensor]]] = [
        ("contiguous", (*dims, *tail), lambda x: x),
        ("every second feature", (*dims, *tail[:-1], 2 * width), lambda x: x[..., ::2]),
        ("narrowed", (*dims, *tail[:-2], length + 3, width), lambda x: x.narrow(-2, 2, length)),
        ("features first", (*dims, *tail[:-2], width, length), lambda x: x.mT),
        ("expanded", (*(1 for _ in dims), *tail), lambda x: x.expand(*dims, *tail)),
    ]
    if len(tail) == 3:
        layouts.append(("heads last", (*dims, length, heads, width), lambda x: x.transpose(-3, -2)))
    layout, leaf_shape, view = layouts[0] if rng.random() < 0.4 else rng.choice(layouts)
    return view(random_normal(rng, leaf_shape, dtype).requires_grad_()), layout


def _poison(rng: Random, mask: Mask, frame: Frame, lead: tuple[int, ...] | None, operands: list[Tensor]) -> None:
    """NaN or infinity into the keys and values that no query may see."""
    for x in operands:
        kv_heads = x.shape[-3] if x.ndim > 2 else 1
        seen = mask.over(frame).expand(frame.batch, frame.heads, -1, -1).any(2)
        unseen = ~seen.unflatten(1, (kv_heads, frame.heads // kv_heads)).any(2)
        if x.ndim == 2 and frame.batch == 1:
            unseen = unseen[0, 0]
        else:
            unseen = unseen.reshape(*(lead or ()), *unseen.shape[1:])
        if x.shape[:-1] == unseen.shape:
            x.detach()[unseen] = rng.choice(ODD)

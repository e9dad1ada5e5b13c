"""How far an implementation may be from the oracle: a budget from data, not from taste.

For each result (out, lse, weights, the gradient of each tensor), over all of its elements:

    |actual - oracle|  <=  3 * |plain - oracle|  +  eps(dtype) * |oracle|  +  eps(accumulation) * size

with the largest of each over the elements. ``plain`` is dense attention in the same precision (`regard.testing.plain`):
a fast path may be no worse than a small multiple of what honest arithmetic gives on the same numbers. The second term
is one rounding of the result to its dtype. The third is one rounding while it was added up, ``size`` being the sum of
the absolute values of the terms: it counts where terms cancel and the plain path was lucky. Infinities must stand in
the same places; NaN is never right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.testing.oracle import Oracle, oracle
from regard.testing.plain import plain

FACTOR = 3.0
"""How much worse than the plain path a result may be."""


class Expected(NamedTuple):
    """A result of the oracle, float64, and how far an implementation may be from it."""

    value: Tensor
    budget: float


def expect(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    dout: Tensor | None = None,
    dlse: Tensor | None = None,
    wrt: Mapping[str, Tensor] | None = None,
    **arguments: Any,
) -> dict[str, Expected]:
    """The expected ``out``, ``lse`` and ``weights``, and ``d<name>`` for every tensor in ``wrt``.

    Args:
        q: as in `oracle`.
        k: as in `oracle`.
        v: as in `oracle`.
        dout: gradient of the loss with respect to out; default 0.
        dlse: gradient of the loss with respect to lse; default 0.
        wrt: name to tensor; the tensors that q, k, v, the sinks and the score changes are made of.
        arguments: the other arguments of `oracle`.
    """
    wrt = dict(wrt or {})
    # The oracle's gradients must not be rounded on their way either: it gets operands of its own in float64.
    sinks = arguments.get("sinks")
    own = {id(x): x.detach().double().requires_grad_(x.requires_grad) for x in (q, k, v, sinks) if x is not None}
    exact = oracle(
        own[id(q)], own[id(k)], own[id(v)], **arguments | {"sinks": None if sinks is None else own[id(sinks)]}
    )
    dense = plain(q, k, v, **arguments)
    working = torch.float64 if q.dtype == torch.float64 else torch.float32
    sizes = _sizes(exact)
    found = {
        name: _expected(getattr(exact, name), getattr(dense, name), sizes[name], dtype, working)
        for name, dtype in (("out", q.dtype), ("lse", working), ("weights", working))
    }
    if not wrt:
        return found
    cotangents = {
        "out": torch.zeros_like(exact.out) if dout is None else dout,
        "lse": torch.zeros_like(exact.lse) if dlse is None else dlse,
    }
    exact_wrt = {name: own.get(id(x), x) for name, x in wrt.items()}
    right, rough = _gradients(exact, cotangents, exact_wrt), _gradients(dense, cotangents, wrt)
    spread = _gradient_sizes(exact, cotangents, exact_wrt)
    for name, tensor in wrt.items():
        found[f"d{name}"] = _expected(right[name], rough[name], spread[name], tensor.dtype, working)
    return found


def assert_close(actual: Mapping[str, Tensor], expected: Mapping[str, Expected], label: str = "") -> None:
    """Hold every result in ``actual`` to its expectation.

    Raises:
        AssertionError: which result is off, where it is worst, both values there, and the budget.
    """
    wrong = [text for name, tensor in actual.items() if (text := mismatch(name, tensor, expected[name]))]
    if wrong:
        raise AssertionError("\n".join([f"not the oracle's answer{': ' + label if label else ''}", *wrong]))


def assert_close_to_oracle(
    actual: Mapping[str, Tensor] | Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    dout: Tensor | None = None,
    dlse: Tensor | None = None,
    wrt: Mapping[str, Tensor] | None = None,
    label: str = "",
    **arguments: Any,
) -> None:
    """Hold results of any implementation of attention to the float64 oracle, within the budget of this module.

    Args:
        actual: ``{"out": …, "lse": …, "weights": …, "dq": …}``, any of them; a bare tensor is ``out``.
        q: as in `regard.attention`.
        k: as in `regard.attention`.
        v: as in `regard.attention`.
        dout: gradient of the loss with respect to out that the gradients in ``actual`` belong to.
        dlse: the same for lse.
        wrt: the tensors of those gradients by name, without the ``d``; default: q, k, v and the sinks.
        label: begins the message.
        arguments: mask, score_mod, scale, dropout_p with seed, sinks, q_positions, k_positions.

    Raises:
        AssertionError: which result is off, where it is worst, both values there, and the budget.

    >>> q, k, v = torch.randn(3, 2, 5, 8).unbind()
    >>> assert_close_to_oracle(torch.nn.functional.scaled_dot_product_attention(q, k, v), q, k, v)
    """
    results = {"out": actual} if isinstance(actual, Tensor) else actual
    if wrt is None and any(name.startswith("d") for name in results):
        candidates = {"q": q, "k": k, "v": v, "sinks": arguments.get("sinks")}
        wrt = {name: x for name, x in candidates.items() if x is not None and x.requires_grad}
    assert_close(results, expect(q, k, v, dout=dout, dlse=dlse, wrt=wrt, **arguments), label)


def mismatch(name: str, actual: Tensor, expected: Expected) -> str | None:
    """What is wrong with a result, in a sentence; None if it is within its budget."""
    want = expected.value
    if actual.shape != want.shape:
        return f"{name} has shape {tuple(actual.shape)} instead of {tuple(want.shape)}"
    have = actual.detach().to(torch.float64)
    odd = have.isnan() | ((have != want) & (have.isinf() | want.isinf()))
    error = torch.where(have == want, 0, (have - want).abs())
    if odd.any():
        error, verdict = odd.double(), "is not finite where it should be, or finite where it should not"
    elif error.numel() == 0 or float(error.max()) <= expected.budget:
        return None
    else:
        verdict = f"is off by {float(error.max()):.3g}, the budget is {expected.budget:.3g}"
    worst = tuple(int(n) for n in torch.unravel_index(error.argmax(), error.shape))
    share = int((error > (0 if odd.any() else expected.budget)).sum())
    return (
        f"{name}{list(worst)} of {tuple(want.shape)} {verdict}: got {float(have[worst]):.9g}, the oracle has "
        f"{float(want[worst]):.9g}; {share} of {error.numel()} elements are off"
    )


def _expected(exact: Tensor, dense: Tensor, size: Tensor, dtype: torch.dtype, working: torch.dtype) -> Expected:
    value = exact.detach().to(torch.float64)
    error = (dense.detach().to(torch.float64) - value).abs()
    rounding = torch.finfo(dtype).eps * _largest(value.abs()) + torch.finfo(working).eps * _largest(size.abs())
    return Expected(value, FACTOR * _largest(error) + rounding)


def _largest(x: Tensor) -> float:
    x = x[x.isfinite()]
    return float(x.max()) if x.numel() else 0.0


def _sizes(exact: Oracle) -> dict[str, Tensor]:
    """What out, lse and weights add up."""
    row, _, addends, share, kept, value = (x.detach() for x in exact.pairs)
    weight = _weight_sizes(exact)
    rows = torch.zeros(exact.lse.numel(), value.shape[1], dtype=value.dtype)
    return {
        "out": rows.index_add(0, row, (weight * kept)[:, None] * value.abs()),
        "lse": torch.where(share > 0, 1 + addends, 0),
        "weights": weight,
    }


def _weight_sizes(exact: Oracle) -> Tensor:
    """``w = exp(s - lse)``: an exponent that is off by ``x`` puts the weight off by the factor ``1 + x``."""
    lse = exact.lse.detach().reshape(-1)
    exponent = exact.pairs.addends + torch.where(lse.isfinite(), lse, 0).abs()[exact.pairs.row]
    return exact.pairs.share.detach() * (1 + exponent)


def _gradients(answer: Any, cotangents: Mapping[str, Tensor], wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
    outputs = [x for x in (answer.out, answer.lse) if x.requires_grad]
    weights = [cotangents[n].to(getattr(answer, n).dtype) for n in ("out", "lse") if getattr(answer, n).requires_grad]
    grads = torch.autograd.grad(outputs, list(wrt.values()), weights, retain_graph=True, materialize_grads=True)
    return dict(zip(wrt, grads, strict=True))


def _gradient_sizes(exact: Oracle, cotangents: Mapping[str, Tensor], wrt: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each gradient adds up: ``ds = w (dp - Σ w dp + dlse)`` with the sign of every term made positive."""
    pairs, weight = exact.pairs, _weight_sizes(exact)
    row, _, _, share, kept, value = (x.detach() for x in pairs)
    dout = cotangents["out"].detach().double().reshape(-1, value.shape[1])
    dlse = cotangents["lse"].detach().double().reshape(-1)
    dp = kept * (dout[row].abs() * value.abs()).sum(-1)
    delta = torch.zeros_like(dlse).index_add(0, row, share * dp)
    ds = weight * (dp + delta[row] + dlse.abs()[row])
    dv = (weight * kept)[:, None] * dout[row].abs()
    parts = [(x, g) for x, g in ((pairs.score, ds), (pairs.value, dv)) if x.requires_grad]
    grads = torch.autograd.grad(
        [x for x, _ in parts], list(wrt.values()), [g for _, g in parts], retain_graph=True, materialize_grads=True
    )
    return dict(zip(wrt, grads, strict=True))

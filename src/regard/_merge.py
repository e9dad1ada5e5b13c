"""Join attention over parts of the keys into attention over all of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from regard._errors import ArgumentError, KindError, ShapeError, describe


def merge(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Attention over all keys from attention over disjoint parts of them, exactly.

    ``lse = log Σ exp(lse_n)`` and ``out = Σ exp(lse_n - lse) out_n``, the step with which FlashAttention (Dao et al.
    2022) joins its tiles. Associative, so parts may be merged in any grouping, and differentiable to every ``out`` and
    ``lse``, since a part's ``lse`` carries its share of the gradient.

    Args:
        parts: pairs ``(out, lse)`` of shapes ``(…, Lq, Dv)`` and ``(…, Lq)``, the same in all parts, for instance
            ``.out`` and ``.lse`` of `regard.inspect`. Sinks belong to at most one part, or they count more than once.

    Returns:
        ``out (…, Lq, Dv)`` in the dtype of the parts and ``lse (…, Lq)`` in nats, float32 (float64 if a part has
        float64), in which the sums are formed. A row that is empty in one part (``lse = -inf``) takes nothing from it,
        whatever its ``out`` holds; a row that is empty in all gives ``out = 0``, ``lse = -inf`` and gradients 0.

    Raises:
        ArgumentError: no parts, or parts on different devices.
        KindError: something else than pairs of float tensors, or an ``out`` of another dtype than the first.
        ShapeError: an ``lse`` that does not fit its ``out``, or parts of different shapes.

    >>> q, k, v = torch.randn(3, 1, 4, 10, 8).unbind()
    >>> halves = [inspect(q, k[..., at, :], v[..., at, :]) for at in (slice(0, 6), slice(6, 10))]
    >>> out, lse = merge((half.out, half.lse) for half in halves)
    >>> torch.testing.assert_close(out, attention(q, k, v))
    """
    pairs = [_checked_pair(n, part) for n, part in enumerate(parts)]
    _check_alike(pairs)
    out_dtype = pairs[0][0].dtype
    wide = any(x.dtype == torch.float64 for pair in pairs for x in pair)
    dtype = torch.float64 if wide else torch.float32
    each = torch.stack([lse.to(dtype) for _, lse in pairs])
    # The shift cancels in both results, so no derivative flows through it.
    top = each.detach().amax(0) if each.numel() else each.detach()[0]
    top = torch.where(top == -torch.inf, 0, top)
    share = torch.exp(each - top)
    total = share.sum(0)
    empty = total == 0
    total = torch.where(empty, 1, total)
    lse = torch.where(empty, -torch.inf, top + torch.log(total))
    weights = (share / total)[..., None]
    out = torch.zeros_like(pairs[0][0], dtype=dtype)
    for weight, (part, part_lse) in zip(weights, pairs, strict=True):
        out = out + weight * torch.where(part_lse[..., None] == -torch.inf, 0, part.to(dtype))
    return out.to(out_dtype), lse


def _checked_pair(n: int, part: object) -> tuple[Tensor, Tensor]:
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise KindError(
            f"merge takes pairs (out, lse): got {describe(part)} as part {n}. The result r of regard.inspect(...) "
            "becomes one with (r.out, r.lse)."
        )
    out, lse = part
    for name, x in (("out", out), ("lse", lse)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise KindError(f"merge takes pairs of float tensors (out, lse): got {name} {describe(x)} in part {n}.")
    if out.ndim == 0 or out.shape[:-1] != lse.shape:
        raise ShapeError(
            f"an lse has one number per row of its out, whose shape is (*lse.shape, Dv): got out {describe(out)} and "
            f"lse {describe(lse)} in part {n}."
        )
    return out, lse


def _check_alike(pairs: list[tuple[Tensor, Tensor]]) -> None:
    if not pairs:
        raise ArgumentError(
            "merge takes at least one part (out, lse): got none. An iterator is used up after one merge."
        )
    first = pairs[0][0]
    for n, (out, lse) in enumerate(pairs):
        found = f"got {describe(first)} in part 0 and {describe(out)} in part {n}"
        if out.shape != first.shape:
            raise ShapeError(f"parts hold the same queries over different keys and have one shape: {found}.")
        if out.dtype != first.dtype:
            raise KindError(f"parts share one dtype: {found}. Convert them with .to(dtype).")
        if {out.device, lse.device} != {first.device}:
            raise ArgumentError(
                f"parts are on one device: {found}, its lse {describe(lse)}. Move them with .to(device)."
            )

"""What `regard.explain` gives back: a decision as data, and its text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from regard._dispatch import Verdict


@dataclass(frozen=True)
class Blocks:
    """How many blocks of a mask are computed unmasked, computed masked, and skipped.

    Counted over every batch entry and query head. A backend that plans by other blocks, or by none, skips other parts.
    """

    size: tuple[int, int]
    full: int
    partial: int
    skipped: int

    def __str__(self) -> str:
        rows, columns = self.size
        return f"{self.full:,} full, {self.partial:,} partial, {self.skipped:,} skipped, of {rows} x {columns}"


@dataclass(frozen=True)
class Plan:
    """How `regard.attention` would do a call, and why; `print` it for a table. Nothing was computed for it.

    Attributes:
        backend: the backend that does the call; None when the one asked for refuses it.
        asked: the ``backend=`` argument.
        verdicts: of every backend, in the order in which they are asked: what it cannot do, and what speaks against
            picking it by itself.
        q_shape: ``(B, H, Lq, D)``, leading dims flattened.
        k_shape: ``(B, Hkv, Lk, D)``.
        v_shape: ``(B, Hkv, Lk, Dv)``.
        dtype: of q, k and v, after autocast.
        device: of q, k and v.
        mask: the mask's repr.
        score_mods: the reprs of the score changes, in order.
        pairs: query-key pairs of all batch entries and query heads, ``B * H * Lq * Lk``.
        visible_pairs: how many of them the mask shows; None where counting would ask a mask without a closed form for
            too many pairs.
        blocks: the mask's blocks; None where `visible_pairs` is.
        operand_bytes: bytes of q, k, v and the output.
        extra_bytes: bytes that the forward pass of the backend holds besides; None where that is not known.
    """

    backend: str | None
    asked: str | None
    verdicts: Mapping[str, Verdict]
    q_shape: tuple[int, int, int, int]
    k_shape: tuple[int, int, int, int]
    v_shape: tuple[int, int, int, int]
    dtype: torch.dtype
    device: torch.device
    mask: str
    score_mods: tuple[str, ...]
    pairs: int
    visible_pairs: int | None
    blocks: Blocks | None
    operand_bytes: int
    extra_bytes: int | None

    @property
    def visible_share(self) -> float | None:
        """Visible pairs as a share of all; 0 where there are none."""
        if self.visible_pairs is None:
            return None
        return self.visible_pairs / self.pairs if self.pairs else 0.0

    @property
    def flops_forward(self) -> int | None:
        """``2 * visible_pairs * (D + Dv)``: one multiplication and one addition a feature of ``q kᵀ`` and ``w v``."""
        return self._flops(1, 1)

    @property
    def flops_backward(self) -> int | None:
        """``2 * visible_pairs * (3 D + 2 Dv)``: the scores again; the gradients of q, k, v and of the weights."""
        return self._flops(3, 2)

    def _flops(self, per_feature: int, per_value: int) -> int | None:
        if self.visible_pairs is None:
            return None
        return 2 * self.visible_pairs * (per_feature * self.q_shape[3] + per_value * self.v_shape[3])

    def why_not(self, name: str) -> str:
        """One sentence on why ``name`` does not do the call; empty for the backend that does it."""
        if name == self.backend:
            return ""
        verdict = self.verdicts[name]
        if verdict.unsupported:
            return f"cannot: it {'; '.join(verdict.unsupported)}."
        if self.asked is not None:
            return f"could, but backend={self.asked!r} was asked for."
        if verdict.discouraged:
            return f"could, but {'; '.join(verdict.discouraged)}."
        return f"could, but {self.backend} is asked before it."

    def __str__(self) -> str:
        return "\n".join(f"{name:<13}{value}".rstrip() for name, value in self._rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._rows()
        )
        return f"<table>{rows}</table>"

    def _rows(self) -> list[tuple[str, str]]:
        shapes = " · ".join(f"{n} {s}" for n, s in zip("qkv", (self.q_shape, self.k_shape, self.v_shape), strict=True))
        rows = [("call", f"{shapes} {str(self.dtype).removeprefix('torch.')} on {self.device}"), ("mask", self.mask)]
        rows += [("score change", mod) for mod in self.score_mods]
        rows += [("visible", self._visible()), ("blocks", "not counted" if self.blocks is None else str(self.blocks))]
        rows += [("backend", self.backend or f"none: {self.asked} {self.why_not(self.asked or '')}")]
        rows += [(f"  {name}", self.why_not(name)) for name in self.verdicts if name not in (self.backend, self._told)]
        rows += [("compute", self._compute()), ("memory", self._memory())]
        return rows

    @property
    def _told(self) -> str | None:
        return self.asked if self.backend is None else None

    def _visible(self) -> str:
        if self.visible_pairs is None or self.visible_share is None:
            return f"not counted: the mask has no closed form for {self.pairs:,} pairs"
        return f"{100 * self.visible_share:.4g} % of {self.pairs:,} pairs"

    def _compute(self) -> str:
        if self.flops_forward is None or self.flops_backward is None:
            return "unknown"
        forward, backward = _scaled(self.flops_forward, 1000, "FLOP"), _scaled(self.flops_backward, 1000, "FLOP")
        return f"{forward} forward, {backward} backward"

    def _memory(self) -> str:
        extra = "not known" if self.extra_bytes is None else _scaled(self.extra_bytes, 1024, "B")
        return f"{_scaled(self.operand_bytes, 1024, 'B')} of operands and output; extra: {extra}"


def _scaled(amount: int, step: int, unit: str) -> str:
    """``amount`` with a prefix and about three digits: ``1.23 GFLOP``, ``12.5 MiB``."""
    if amount < step:
        return f"{amount} {unit}"
    value, prefix = float(amount), ""
    for larger in "kMGTPE" if step == 1000 else ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"):
        if value < step:
            break
        value, prefix = value / step, larger
    digits = max(2 - int(math.log10(value)), 0)
    return f"{value:.{digits}f} {prefix}{unit}"

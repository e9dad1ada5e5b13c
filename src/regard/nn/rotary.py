"""Rotary positions: queries and keys are turned by their position, so that a score knows only the distance."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from regard._coordinates import broadcasts
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard.masks.base import checked_int
from regard.nn.rotary_scaling import RotaryScaling, plain_frequencies
from regard.nn.turning import turned

Layout = Literal["half-split", "interleaved"]
_modes = torch._C._len_torch_dispatch_stack
_SHARED = 1 << 22
"""The most angles, counted by feature, that layers keep for one another: 16 MiB of cosines and sines."""


class RotaryEmbedding(nn.Module):
    """Rotary position embedding (RoFormer, Su et al. 2021, arXiv:2104.09864).

    The first ``dim`` features of a head form ``dim / 2`` pairs. Pair ``j`` of a token at position ``p`` is turned by
    the angle ``p · θ_j``, ``θ_j = base^(-2j / dim)``: ``(a, b)`` becomes ``(a cos - b sin, b cos + a sin)``. So
    ``q · k`` depends on the two positions by their difference alone. Features from ``dim`` on are left as they are.

    Angles are computed in float64 and the turn in float32 (float64 for float64 inputs); the result has the input's
    dtype. Any position will do, and the module adds nothing to a state dict.

    Args:
        dim: features that are turned, even; a head may have more.
        base: of the frequencies, above 1; 10000 in the paper, 500000 in Llama 3.
        layout: which features form a pair. ``"half-split"``: ``j`` and ``j + dim / 2`` (GPT-NeoX, transformers' Llama);
            ``"interleaved"``: ``2j`` and ``2j + 1`` (the paper, GPT-J, Meta's Llama). `half_split_to_interleaved` and
            `interleaved_to_half_split` convert weights from one to the other.
        scaling: other frequencies for longer sequences: `LinearScaling`, `DynamicNTK`, `YaRN`, `Llama3Scaling`.

    Shape:
        ``q (…, H, L, D)``, ``k (…, Hkv, L, D)`` and ``positions (L,)`` or ``(B, L)`` to ``q`` and ``k`` of the same
        shapes.

    Raises:
        KindError: a value of the wrong type.
        ArgumentError: an odd ``dim``, a ``base`` of 1 or less, an unknown layout.

    >>> rope = RotaryEmbedding(2)
    >>> q, k = rope(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    >>> q
    tensor([[0.5403, 0.8415]])
    """

    def __init__(
        self,
        dim: int,
        *,
        base: float = 10000.0,
        layout: Layout = "half-split",
        scaling: RotaryScaling | None = None,
    ) -> None:
        super().__init__()
        self.dim = _checked_dim("dim", dim)
        if not isinstance(base, (int, float)) or isinstance(base, bool):
            raise KindError(f"base must be a number: got {describe(base)}.")
        if not base > 1:
            raise ArgumentError(f"base must be above 1, so that each pair turns slower than the last: got {base}.")
        if layout not in ("half-split", "interleaved"):
            raise ArgumentError(f"layout must be 'half-split' or 'interleaved': got {describe(layout)}.")
        if scaling is not None and not isinstance(scaling, RotaryScaling):
            raise KindError(f"scaling takes a RotaryScaling such as YaRN(4.0, 4096), or None: got {describe(scaling)}.")
        self.base = float(base)
        self.layout: Layout = layout
        self.scaling = scaling

    def forward(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """``q`` and ``k``, turned by ``positions``.

        Raises:
            KindError: operands that are no floating-point tensors, positions that are no integers.
            ShapeError: heads of fewer than ``dim`` features, positions of another length or batch.
        """
        for name, x in (("q", q), ("k", k)):
            self._check(name, x, positions)
        cos, sin = self._turns(positions)
        return self._turned(q, cos, sin), self._turned(k, cos, sin)

    def turn_run(self, q: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """As `forward` with the positions ``start, start + 1, …``; the layers of a model share the angles."""
        length = q.shape[-2]
        if not self._shares(q, length):
            turned_both: tuple[Tensor, Tensor] = self(q, k, torch.arange(start, start + length, device=q.device))
            return turned_both
        dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
        cos, sin = _angles(self.dim, self.base, self.scaling, start, length, q.device, dtype)
        return self._turned(q, cos, sin), self._turned(k, cos, sin)

    def _shares(self, q: Tensor, length: int) -> bool:
        """Whether the angles of a call may be kept: no graph or other mode, and `forward` does what it does here."""
        plain = type(self) is RotaryEmbedding and not (self._forward_hooks or self._forward_pre_hooks)
        kept = length * self.dim <= _SHARED and isinstance(self.scaling, Hashable)
        eager = type(q) is Tensor and q.is_floating_point() and not (torch.compiler.is_compiling() or _modes())
        return plain and kept and eager

    def _check(self, name: str, x: Tensor, positions: Tensor) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise KindError(f"{name} must be a floating-point tensor: got {describe(x)}.")
        if x.ndim < 2 or x.shape[-1] < self.dim:
            raise ShapeError(
                f"{name} must be (…, heads, tokens, features) with at least dim = {self.dim} features a head: got "
                f"{tuple(x.shape)}. Make the RotaryEmbedding with a smaller dim."
            )
        check_positions(positions, x.shape[0] if x.ndim > 3 else 1, x.shape[-2])

    def frequencies(self, positions: Tensor) -> Tensor:
        """Radians a token ``(dim / 2,)``, float64, of a call whose tokens stand at ``positions``."""
        return _frequencies(self.dim, self.base, self.scaling, positions)

    @property
    def magnitude(self) -> float:
        """The factor of turned queries and of turned keys."""
        return _magnitude(self.scaling)

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``(L, dim / 2)`` or ``(B, 1, L, dim / 2)``."""
        cos, sin = _turns(self.dim, self.base, self.scaling, positions)
        return (cos.unsqueeze(-3), sin.unsqueeze(-3)) if positions.ndim == 2 else (cos, sin)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # One dim between batch and heads for each leading dim more than (B, H, L, D) has.
        while 2 < cos.ndim < x.ndim:
            cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return turned(x, cos, sin, self.dim, half_split=self.layout == "half-split")

    def extra_repr(self) -> str:
        scaling = "" if self.scaling is None else f", scaling={self.scaling!r}"
        return f"{self.dim}, base={self.base}, layout={self.layout!r}{scaling}"


def _frequencies(dim: int, base: float, scaling: RotaryScaling | None, positions: Tensor) -> Tensor:
    return (
        plain_frequencies(dim, base, positions.device) if scaling is None else scaling.frequencies(dim, base, positions)
    )


def _magnitude(scaling: RotaryScaling | None) -> float:
    return 1.0 if scaling is None else scaling.magnitude


def _turns(dim: int, base: float, scaling: RotaryScaling | None, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine ``(…, L, dim / 2)``, float64, times the magnitude."""
    angle = positions.double()[..., None] * _frequencies(dim, base, scaling, positions)
    return angle.cos() * _magnitude(scaling), angle.sin() * _magnitude(scaling)


@lru_cache(maxsize=4)
def _angles(
    dim: int,
    base: float,
    scaling: RotaryScaling | None,
    start: int,
    length: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the positions ``start, start + 1, …``: tensors that may be saved for a backward pass."""
    with torch.inference_mode(mode=False):
        cos, sin = _turns(dim, base, scaling, torch.arange(start, start + length, device=device))
        return cos.to(dtype), sin.to(dtype)


def check_positions(positions: object, batch: int, length: int) -> None:
    """Raise unless ``positions`` gives one position a token.

    Raises:
        KindError: no integer tensor.
        ShapeError: another length or batch.
    """
    if not isinstance(positions, Tensor) or positions.dtype not in (torch.int64, torch.int32):
        raise KindError(f"positions must be an int64 tensor: got {describe(positions)}. Convert it with .long().")
    fits = positions.ndim in (1, 2) and positions.shape[-1] == length
    if not fits or (positions.ndim == 2 and not broadcasts(positions.shape[0], batch)):
        raise ShapeError(
            f"positions must be ({length},) or ({batch}, {length}), one a token: got {tuple(positions.shape)}."
        )


def half_split_to_interleaved(weight: Tensor, num_heads: int, dim: int | None = None) -> Tensor:
    """The weight or bias of a projection to queries or keys, made for the half-split layout, for the interleaved one.

    Attention with the converted ``W_query`` and ``W_key`` and the other layout is unchanged, as both permute the
    features of a head in the same way.

    Args:
        weight: ``(num_heads * D, d_in)``, or a bias ``(num_heads * D,)``.
        num_heads: heads of this projection; of ``W_key`` the key/value heads.
        dim: features of a head that are turned; default: all.

    Returns:
        A new tensor of the same shape.

    Raises:
        ShapeError: rows that do not divide into heads, heads smaller than ``dim``.
        ArgumentError: an odd ``dim``.

    >>> half_split_to_interleaved(torch.tensor([0, 1, 2, 3]), num_heads=1)
    tensor([0, 2, 1, 3])
    """
    heads, dim = _heads(weight, num_heads, dim)
    turned = heads[:, :dim].unflatten(1, (2, dim // 2)).transpose(1, 2).flatten(1, 2)
    return torch.cat([turned, heads[:, dim:]], 1).flatten(0, 1)


def interleaved_to_half_split(weight: Tensor, num_heads: int, dim: int | None = None) -> Tensor:
    """The inverse of `half_split_to_interleaved`; arguments, result and errors as there.

    >>> interleaved_to_half_split(torch.tensor([0, 2, 1, 3]), num_heads=1)
    tensor([0, 1, 2, 3])
    """
    heads, dim = _heads(weight, num_heads, dim)
    turned = heads[:, :dim].unflatten(1, (dim // 2, 2)).transpose(1, 2).flatten(1, 2)
    return torch.cat([turned, heads[:, dim:]], 1).flatten(0, 1)


def _heads(weight: Tensor, num_heads: int, dim: int | None) -> tuple[Tensor, int]:
    """``weight`` as ``(num_heads, D, …)``, and the features to permute."""
    rows = weight.shape[0]
    if rows % checked_int("num_heads", num_heads, 1):
        raise ShapeError(f"weight must have num_heads * D rows: got {rows} rows and num_heads={num_heads}.")
    dim = _checked_dim("dim", rows // num_heads if dim is None else dim)
    if dim > rows // num_heads:
        raise ShapeError(f"dim must not be above the {rows // num_heads} features of a head: got {dim}.")
    return weight.unflatten(0, (num_heads, -1)), dim


def _checked_dim(name: str, dim: object) -> int:
    size = checked_int(name, dim, 2)
    if size % 2:
        raise ArgumentError(f"{name} counts features that are turned in pairs and must be even: got {size}.")
    return size

"""A mask that travels through a model as a float tensor of which nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from regard.adapters.huggingface.masks import Geometry, q_positions
from regard.masks import Mask
from regard.masks.base import version


class MaskTensor(Tensor):
    """What transformers hands from its mask function to its attention function, ``(B, 1, q_len, k_len)``.

    It is a `Mask` that stands for the tensor that eager attention adds to its scores, 0 where a query may attend and
    the least number of its dtype elsewhere. That tensor is made when a model computes with it, and never otherwise.

    Attributes:
        q_positions: positions of the queries, None for the default.
        in_place: whether the keys live in a cache that is written into.
    """

    _mask: Mask
    _at: Geometry
    _made: Tensor | None
    q_positions: Tensor | None
    in_place: bool

    @staticmethod
    def of(mask: Mask, at: Geometry, dtype: torch.dtype = torch.float32, *, in_place: bool = False) -> MaskTensor:
        """``mask`` as a tensor of the sizes ``at``; ``in_place`` if the keys live in a cache that is written into."""
        shape = (at.batch, 1, at.q_len, at.k_len)
        made: Tensor = Tensor._make_wrapper_subclass(MaskTensor, shape, dtype=dtype, device=at.device)
        self = cast(MaskTensor, made)
        self._mask, self._at, self._made, self.in_place = mask, at, None, in_place
        self.q_positions = q_positions(mask, at)
        return self

    @property
    def mask(self) -> Mask | None:
        """The mask, its keys at ``0 … k_len - 1`` and its queries at `q_positions`; None once it was written into."""
        # Whoever wrote into the tensor, or into a view of it, meant that and not what it was made from.
        return self._mask if self._made is None or version(self._made) == 0 else None

    @property
    def geometry(self) -> Geometry:
        """The sizes that the mask was made for."""
        return self._at

    def made(self) -> Tensor:
        """The tensor itself."""
        if self._made is None:
            at = self._at
            allowed = self._mask.dense(at.q_len, at.k_len, self.q_positions, batch=at.batch, heads=1)
            nothing = torch.zeros(allowed.shape, dtype=self.dtype, device=at.device)
            hidden = nothing.masked_fill(~allowed, torch.finfo(self.dtype).min)
            self._made = hidden.expand(at.batch, 1, at.q_len, at.k_len).clone()
        return self._made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # torch's says Any
        at = self._at
        return f"MaskTensor({self._mask!r}, shape={(at.batch, 1, at.q_len, at.k_len)})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _LOOKS:
                return func(*args, **kwargs)
            if func in _SAME:
                return args[0]
            if func is Tensor.__getitem__ and _is_whole(args[1], args[0].shape):
                return args[0]
            if func is Tensor.to and _stays(args[0], args[1:], kwargs):
                return args[0]
            args, kwargs = tree_map_only(MaskTensor, MaskTensor.made, (tuple(args), kwargs))
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's is a function
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(MaskTensor, MaskTensor.made, (tuple(args), kwargs or {}))
        return func(*args, **kwargs)


_LOOKS = {
    getter
    for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_meta", "requires_grad", "is_cpu")
    if (getter := getattr(Tensor, name).__get__)
} | {
    Tensor.size,
    Tensor.dim,
    Tensor.ndimension,
    Tensor.numel,
    Tensor.__len__,
    Tensor.is_floating_point,
    Tensor.__repr__,
}
"""What can be asked of a tensor without its content."""


_SAME = {Tensor.contiguous, Tensor.detach}
"""What makes no difference to a mask."""


def _is_whole(index: object, shape: torch.Size) -> bool:
    """Whether ``tensor[index]`` is all of the tensor, as in ``mask[:, :, :, : keys.shape[-2]]``."""
    if not isinstance(index, tuple) or len(index) > len(shape):
        return False
    return all(isinstance(s, slice) and s.indices(n) == (0, n, 1) for s, n in zip(index, shape, strict=False))


def _stays(mask: MaskTensor, to: Sequence[object], kwargs: dict[str, object]) -> bool:
    """Whether ``mask.to(...)`` changes neither the device nor the dtype."""
    wanted = [*to, *(value for name, value in kwargs.items() if name in ("device", "dtype", "other"))]
    if kwargs.get("copy") or any(isinstance(one, Tensor) for one in wanted):
        return False
    same = (mask.geometry.device, str(mask.geometry.device), mask.dtype, None)
    return all(one in same or isinstance(one, bool) for one in wanted)

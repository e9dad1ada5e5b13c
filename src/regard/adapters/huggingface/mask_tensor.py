"""A mask that travels through a model as a bool tensor of which nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from regard.adapters.huggingface.masks import Geometry, q_positions
from regard.masks import Dense, Mask
from regard.masks.base import version


class MaskTensor(Tensor):
    """What transformers hands from its mask function to its attention function: bool ``(B, 1, q_len, k_len)``.

    It is a `Mask` with the shape of the tensor it stands for, which is made when a model computes with it and never
    otherwise. True means "may attend", as in the masks that transformers makes for torch's attention.
    """

    _mask: Mask
    _at: Geometry
    _made: Tensor | None
    in_place: bool

    @staticmethod
    def of(mask: Mask, at: Geometry, *, in_place: bool = False) -> MaskTensor:
        """``mask`` as a tensor of the sizes ``at``; ``in_place`` if the keys live in a cache that is written into."""
        shape = (at.batch, 1, at.q_len, at.k_len)
        made: Tensor = Tensor._make_wrapper_subclass(MaskTensor, shape, dtype=torch.bool, device=at.device)
        self = cast(MaskTensor, made)
        self._mask, self._at, self._made, self.in_place = mask, at, None, in_place
        return self

    @property
    def mask(self) -> Mask:
        """The mask, its keys at ``0 … k_len - 1`` and its queries at `q_positions`."""
        # Whoever wrote into the tensor, or into a view of it, meant that and not what it was made from.
        return self._mask if self._made is None or version(self._made) == 0 else Dense(self._made)

    @property
    def q_positions(self) -> Tensor | None:
        """Positions of the queries, None for the default."""
        return q_positions(self._mask, self._at)

    @property
    def geometry(self) -> Geometry:
        """The sizes that the mask was made for."""
        return self._at

    def made(self) -> Tensor:
        """The tensor itself."""
        if self._made is None:
            at = self._at
            dense = self._mask.dense(at.q_len, at.k_len, self.q_positions, batch=at.batch, heads=1)
            self._made = dense.expand(at.batch, 1, at.q_len, at.k_len).clone()
        return self._made

    def made_for(self, dtype: torch.dtype | None) -> Tensor:
        """The tensor itself, or what eager attention adds to scores of ``dtype`` for it."""
        if dtype is None:
            return self.made()
        return torch.zeros(self.shape, dtype=dtype, device=self._at.device).masked_fill(
            ~self.made(), torch.finfo(dtype).min
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # torch's says Any
        at = self._at
        return f"MaskTensor({self.mask!r}, shape={(at.batch, 1, at.q_len, at.k_len)})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _LOOKS:
                return func(*args, **kwargs)
            if func is Tensor.__getitem__ and _is_whole(args[1], args[0].shape):
                return args[0]
            if func is Tensor.to and _stays(args[0], args[1:], kwargs):
                return args[0]
            # A model that adds its mask to float numbers was written for eager's masks: 0, or as low as can be.
            dtype = _added_dtype(args) if func in _ADDS else None
            args, kwargs = tree_map_only(MaskTensor, lambda mask: mask.made_for(dtype), (tuple(args), kwargs))
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


_ADDS = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__}


def _added_dtype(args: Sequence[object]) -> torch.dtype | None:
    """The dtype of the float tensor among the operands, if there is one."""
    dtypes = [one.dtype for one in args if isinstance(one, Tensor) and not isinstance(one, MaskTensor)]
    return next((dtype for dtype in dtypes if dtype.is_floating_point), None)


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
    same = (mask.geometry.device, str(mask.geometry.device), torch.bool, None)
    return all(one in same or isinstance(one, bool) for one in wanted)

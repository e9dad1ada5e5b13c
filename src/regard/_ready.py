"""Calls that are ready to run: a plain call like one before needs no new checks, no choice and no plan.

What a call may depend on is in its key: shapes, strides, dtypes, the mask's structure, scale, number of threads. What a
key cannot say goes the long way: tensors of other kinds, transforms, autocast, graphs, positions, score changes.
"""

from __future__ import annotations

import os
from collections.abc import Hashable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from regard.backends.base import Runner
from regard.masks import Mask

_MOST = 512
_runners: dict[Hashable, Runner] = {}
# A forked child has none of the threads that a runner may count on.
os.register_at_fork(after_in_child=_runners.clear)
_compiling = torch.compiler.is_compiling
_transformed = torch._C._functorch.peek_interpreter_stack
_modes = torch._C._len_torch_dispatch_stack
_autocast = torch.is_autocast_enabled
_threads = torch.get_num_threads
_grad = torch.is_grad_enabled


def key_of(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float | None, backend: str | None) -> Hashable:
    """All that a call without further arguments depends on but its numbers; None where that is not so easily said."""
    if _compiling() or not type(q) is type(k) is type(v) is Tensor:
        return None
    q_shape, k_shape, v_shape, dtype = q.shape, k.shape, v.shape, q.dtype
    if not len(q_shape) == len(k_shape) == len(v_shape) == 4 or k.dtype is not dtype or v.dtype is not dtype:
        return None
    if q.is_neg() or k.is_neg() or v.is_neg():
        return None
    if not (q.is_cpu and k.is_cpu and v.is_cpu) or _autocast("cpu") or _modes() or _transformed() is not None:
        return None
    if forward_ad._current_level >= 0 or not (scale is None or type(scale) is float):
        return None
    if not (backend is None or type(backend) is str):
        return None
    structure: Hashable = None
    if mask is not None:
        if not isinstance(mask, Mask) or mask.tensors():
            return None
        structure = (type(mask), mask._key())
    learns = _grad() and (q.requires_grad or k.requires_grad or v.requires_grad)
    plain = q.is_contiguous() and k.is_contiguous() and v.is_contiguous()
    strides = None if plain else (q.stride(), k.stride(), v.stride())
    return q_shape, k_shape, v_shape, dtype, strides, structure, scale, backend, learns, _threads()


def find(key: Hashable) -> Runner | None:
    """The runner that was kept for calls of this key."""
    return _runners.get(key)


def keep(key: Hashable, runner: Runner) -> None:
    """Keep a runner for the next call of this key."""
    if len(_runners) >= _MOST:
        _runners.clear()
    _runners[key] = runner


def forget() -> None:
    """Forget all runners, as when another variant of the kernels is to be used."""
    _runners.clear()

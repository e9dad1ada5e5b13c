"""A call that is prepared once, and then run again and again on other tensors of the same shapes and strides."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import torch
from torch import Tensor

from regard._derivatives import refuse_second
from regard.backends.native import library
from regard.backends.native.abi import CallView, TensorView
from regard.backends.native.function import Plan, Saved, backward, check, prepared

_Copy = tuple[Any, int]
_first = CallView.q.offset
_addresses = ["q", "k", "v", "out", "lse", "norms", "exact_out"]
_tensor = ctypes.sizeof(TensorView)
assert [getattr(CallView, name).offset - _first for name in _addresses] == [
    0, _tensor, 2 * _tensor, 3 * _tensor, 4 * _tensor, 4 * _tensor + 8, 4 * _tensor + 16,
]  # fmt: skip
_write = struct.Struct("@" + 4 * "Pqqq" + "PPP").pack_into


class Ready:
    """Runs a plan without sinks and score changes on operands ``(B, H, L, D)`` laid out like the given ones.

    The C struct is filled once. A call writes its addresses into a copy, and copies go back to a pool, so that several
    threads may call at once.
    """

    def __init__(self, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        out, lse, view = prepared(plan, q, k, v, None)
        self.plan = plan
        self._filled = bytes(view)
        self._out_shape, self._rows = tuple(out.shape), tuple(lse.shape)
        self._count = lse.numel()
        self._strides = [x.stride()[:3] for x in (q, k, v, out)]
        self._exact = q.dtype == torch.float32
        self._copies: list[_Copy] = []
        self._run = library.by_address("regard_forward")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``out (B, H, Lq, Dv)``, without a gradient."""
        out = q.new_empty(self._out_shape)
        lse = q.new_empty(self._rows, dtype=torch.float32)
        self._forward(q, k, v, out, lse.data_ptr(), 0, 0)
        return out

    def and_save(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``out (B, H, Lq, Dv)``, and what `saved` takes: each row's three numbers, and out unrounded."""
        out = q.new_empty(self._out_shape)
        numbers = q.new_empty(3 * self._count, dtype=torch.float32)
        exact = out if self._exact else numbers.new_empty(self._out_shape)
        at = numbers.data_ptr()
        self._forward(q, k, v, out, at, at + 4 * self._count, 0 if self._exact else exact.data_ptr())
        return out, numbers, exact

    def saved(self, q: Tensor, k: Tensor, v: Tensor, numbers: Tensor, exact: Tensor) -> Saved:
        """What backward needs."""
        lse, norms = numbers[: self._count].view(self._rows), numbers[self._count :].view(*self._rows, 2)
        return Saved(q, k, v, None, lse, norms, exact)

    def _forward(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: int, norms: int, exact: int) -> None:
        copy = self._copies.pop() if self._copies else None
        if copy is None:
            buffer = ctypes.create_string_buffer(self._filled, len(self._filled))
            copy = buffer, ctypes.addressof(buffer)
        of_q, of_k, of_v, of_out = self._strides
        _write(
            copy[0], _first, q.data_ptr(), *of_q, k.data_ptr(), *of_k, v.data_ptr(), *of_v, out.data_ptr(), *of_out,
            lse, norms, exact,
        )  # fmt: skip
        flag = self._run(copy[1])
        self._copies.append(copy)
        check(flag)


class ReadyAttention(torch.autograd.Function):
    """A ready call with its first derivative."""

    @staticmethod
    def forward(ctx: Any, ready: Ready, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, numbers, exact = ready.and_save(q, k, v)
        ctx.ready = ready
        ctx.save_for_backward(q, k, v, numbers, exact)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        q, k, v, numbers, exact = ctx.saved_tensors
        ready: Ready = ctx.ready
        with torch.no_grad():
            grads = backward(ready.plan, ready.saved(q, k, v, numbers, exact), grad_out, None, ())
        return None, *refuse_second(grads[:3], (q, k, v, grad_out))

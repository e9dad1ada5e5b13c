"""A call that is prepared once, and then run again and again on other tensors of the same shapes and strides."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from regard._derivatives import refuse_second, refuse_several
from regard.backends.native import library
from regard.backends.native.abi import CallView, TensorView, readable
from regard.backends.native.function import forward_view, room_for_out
from regard.backends.native.plan import Plan, check, owners_for, view_of

_WORD = 8
_FEW = 4096
Norms = Any
"""The norms of few rows are an array of ctypes, which is made much faster than a tensor; else a tensor."""

_address = ctypes.addressof
_empty_like = torch.empty_like
_grad = torch.is_grad_enabled


def _word(name: str) -> int:
    """The index of an address in the struct, counted in words of 8 bytes."""
    offset: int = getattr(CallView, name).offset
    assert offset % _WORD == 0
    return offset // _WORD


_Q, _K, _V, _OUT, _NORMS, _EXACT = map(_word, ("q", "k", "v", "out", "norms", "exact_out"))
_GRAD_OUT, _GRAD_Q, _GRAD_K, _GRAD_V = map(_word, ("grad_out", "grad_q", "grad_k", "grad_v"))


class Filled:
    """A C struct that is filled once. A caller takes a copy, writes addresses into it, and gives it back.

    Copies wait in a pool, so that several threads may call at once.
    """

    def __init__(self, view: CallView, entry: str) -> None:
        self._bytes = bytes(view)
        self._run = library.by_address(entry)
        self.pool: list[tuple[memoryview, int]] = []

    def copy(self) -> tuple[memoryview, int]:
        """A copy for one call: its words, and its address."""
        # Not asked first whether one waits: another thread could take it meanwhile.
        try:
            return self.pool.pop()
        except IndexError:
            return self._new_copy()

    def _new_copy(self) -> tuple[memoryview, int]:
        buffer = ctypes.create_string_buffer(self._bytes, len(self._bytes))
        return memoryview(buffer).cast("B").cast("Q"), ctypes.addressof(buffer)

    def run(self, copy: tuple[memoryview, int]) -> None:
        """Call the kernels, and put the copy back."""
        flag = self._run(copy[1])
        self.pool.append(copy)
        if flag:
            check(flag)


class Ready:
    """Runs a plan without sinks and score changes on operands ``(B, H, L, D)`` laid out like the given ones."""

    def __init__(self, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        self._plan = plan  # keeps what the struct points to
        self._width = v.shape[3]
        out = room_for_out(q, self._width)
        self._like_q = out.shape == q.shape and out.stride() == torch.empty_like(q).stride()
        self._filled = Filled(forward_view(plan, q, k, v, out, None), "regard_forward")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``out (B, H, Lq, Dv)``, without a gradient."""
        out = _empty_like(q) if self._like_q else room_for_out(q, self._width)
        filled = self._filled
        copy = filled.copy()
        words = copy[0]
        words[_Q], words[_K], words[_V], words[_OUT] = q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()
        filled.run(copy)
        return out


class ReadyWithGradient(Ready):
    """The same with a first derivative."""

    def __init__(self, plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> None:
        super().__init__(plan, q, k, v)
        self._float32 = q.dtype == torch.float32
        self._norms_shape = (*q.shape[:3], 2)
        floats = 2 * q.shape[:3].numel()
        self._few: type[ctypes.Array[ctypes.c_float]] | None = ctypes.c_float * floats if floats <= _FEW else None
        # A gradient is laid out like its operand where the kernels can write it so.
        self._like = [torch.empty_like(x).stride(-1) == 1 or x.shape[-1] == 1 for x in (q, k, v)]
        view = view_of(plan, q, k, v)
        view.out = TensorView.of(room_for_out(q, self._width))
        view.grad_q, view.grad_k, view.grad_v = map(TensorView.of, self._gradients(q, k, v))
        self._owners, self._k_len, self._view = q.shape[0] * k.shape[1], k.shape[2], view
        self._backward: dict[int, Filled] = {}
        self._apply = super(torch.autograd.Function, ReadyAttention).apply

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The base class's own apply: what torch's does before it concerns transforms, under which no call is ready.
        out: Tensor = self._apply(self, q, k, v)  # type: ignore[no-untyped-call]  # torch's
        return out

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Norms]:
        """``out (B, H, Lq, Dv)``, out before it was rounded to its dtype, and the norms of its rows."""
        out = _empty_like(q) if self._like_q else room_for_out(q, self._width)
        exact = out if self._float32 else _empty_like(out, dtype=torch.float32)
        norms: Norms
        if self._few is None:
            norms = q.new_empty(self._norms_shape, dtype=torch.float32)
            norms_at = norms.data_ptr()
        else:
            norms = self._few()
            norms_at = _address(norms)
        filled = self._filled
        copy = filled.copy()
        words = copy[0]
        words[_Q], words[_K], words[_V], words[_OUT] = q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()
        words[_NORMS] = norms_at
        if exact is not out:
            words[_EXACT] = exact.data_ptr()
        filled.run(copy)
        return out, exact, norms

    def backward(
        self, grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, exact: Tensor, norms: Norms
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and v."""
        if grad_out.is_neg() or grad_out.stride(3) != 1:
            grad_out = readable(grad_out)
        try:
            grad_out_at = grad_out.data_ptr()
        except RuntimeError:
            refuse_several(grad_out)
            raise
        grads = grad_q, grad_k, grad_v = self._gradients(q, k, v)
        # A forked child has one thread, and the number may have been changed since.
        threads = library.threads()
        filled = self._backward.get(threads) or self._filled_backward(threads)
        copy = filled.copy()
        words = copy[0]
        words[_Q], words[_K], words[_V] = q.data_ptr(), k.data_ptr(), v.data_ptr()
        words[_NORMS], words[_EXACT] = _address(norms) if self._few else norms.data_ptr(), exact.data_ptr()
        words[_GRAD_OUT] = grad_out_at
        words[_GRAD_OUT + 1], words[_GRAD_OUT + 2], words[_GRAD_OUT + 3] = grad_out.stride()[:3]
        words[_GRAD_Q], words[_GRAD_K], words[_GRAD_V] = grad_q.data_ptr(), grad_k.data_ptr(), grad_v.data_ptr()
        filled.run(copy)
        return grads

    def _gradients(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_q, of_k, of_v = self._like
        return (
            _empty_like(q) if of_q else q.new_empty(q.shape),
            _empty_like(k) if of_k else k.new_empty(k.shape),
            _empty_like(v) if of_v else v.new_empty(v.shape),
        )

    def _filled_backward(self, threads: int) -> Filled:
        view = CallView.from_buffer_copy(self._view)
        view.threads, view.chunks = threads, owners_for(self._owners, threads, self._k_len)
        filled = self._backward[threads] = Filled(view, "regard_backward")
        return filled


class ReadyAttention(torch.autograd.Function):
    """A ready call as a node of the graph."""

    @staticmethod
    def forward(ctx: Any, ready: ReadyWithGradient, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, exact, norms = ready.forward(q, k, v)
        ctx.kept = ready, norms
        ctx.save_for_backward(q, k, v, exact)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        q, k, v, exact = ctx.saved_tensors
        ready, norms = ctx.kept
        if not _grad():
            return None, *ready.backward(grad_out, q, k, v, exact, norms)
        with torch.no_grad():
            grads = ready.backward(grad_out, q, k, v, exact, norms)
        return None, *refuse_second(grads, (q, k, v, grad_out))

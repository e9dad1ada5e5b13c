"""The C ABI of the kernels, field by field as in ``native/abi.h``."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int32, c_int64, c_uint32, c_void_p

import torch
from torch import Tensor

MAX_SCORES = 4
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def readable(x: Tensor) -> Tensor:
    """``x``, or a copy where an address and strides with a last one of 1 do not say what it holds."""
    x = x.resolve_neg() if not torch.compiler.is_compiling() and x.is_neg() else x
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


class MaskKind:
    """How a mask is handed over."""

    BAND, INTERVALS, BITS = range(3)


class ScoreKind:
    """How a score change is handed over."""

    CAP, ADD = range(2)


class TensorView(ctypes.Structure):
    """A 4-D operand: address and strides in elements; the last stride is 1."""

    _fields_ = (("data", c_void_p), ("batch", c_int64), ("head", c_int64), ("row", c_int64))

    @staticmethod
    def of(x: Tensor) -> TensorView:
        """The view of ``x (B, H, L, D)``."""
        batch, head, row, _ = x.stride()
        return TensorView(x.data_ptr(), batch, head, row)


class MaskView(ctypes.Structure):
    """A mask as a band, as four integers a row, or as bits."""

    _fields_ = (
        ("kind", c_int32),
        ("band_low", c_int64),
        ("band_high", c_int64),
        ("rows", c_void_p),
        ("bits", c_void_p),
        ("batch", c_int64),
        ("head", c_int64),
        ("row", c_int64),
        ("seen", c_void_p),
        ("seen_batch", c_int64),
        ("seen_head", c_int64),
    )


class ScoreView(ctypes.Structure):
    """One score change: a cap, or a strided tensor that is added and may want its gradient."""

    _fields_ = (
        ("kind", c_int32),
        ("cap", c_float),
        ("data", c_void_p),
        ("batch", c_int64),
        ("head", c_int64),
        ("row", c_int64),
        ("column", c_int64),
        ("grad", c_void_p),
        ("grad_chunk", c_int64),
        ("grad_batch", c_int64),
        ("grad_head", c_int64),
        ("grad_row", c_int64),
        ("grad_column", c_int64),
    )


class CallView(ctypes.Structure):
    """A whole call.

    Attributes:
        sinks_kept: the float32 copy of the sinks that ``sinks`` points to.
    """

    sinks_kept: Tensor

    _fields_ = (
        ("struct_size", c_int64),
        ("dtype", c_int32),
        ("threads", c_int32),
        ("parallel", c_void_p),
        ("batch", c_int64),
        ("kv_heads", c_int64),
        ("group", c_int64),
        ("q_len", c_int64),
        ("k_len", c_int64),
        ("features", c_int64),
        ("value_features", c_int64),
        ("scale", c_float),
        ("keep_scale", c_float),
        ("q", TensorView),
        ("k", TensorView),
        ("v", TensorView),
        ("out", TensorView),
        ("lse", c_void_p),
        ("norms", c_void_p),
        ("exact_out", c_void_p),
        ("sinks", c_void_p),
        ("mask", MaskView),
        ("scores_count", c_int32),
        ("dropout", c_int32),
        ("scores", ScoreView * MAX_SCORES),
        ("seed", c_int64),
        ("drop_below", c_uint32),
        ("chunks", c_int32),
        ("grad_out", TensorView),
        ("grad_q", TensorView),
        ("grad_k", TensorView),
        ("grad_v", TensorView),
        ("grad_lse", c_void_p),
        ("grad_entropy", c_void_p),
        ("delta", c_void_p),
        ("top", c_void_p),
        ("entropy", c_void_p),
        ("received", c_void_p),
        ("mass", c_void_p),
        ("peak", c_void_p),
        ("lift", c_void_p),
        ("factors", c_void_p),
        ("best_scores", c_void_p),
        ("best_columns", c_void_p),
        ("pool_rows", c_int64),
        ("pool_columns", c_int64),
        ("row_extent", c_int64),
        ("column_extent", c_int64),
        ("best_count", c_int64),
    )

"""Calls of the native backend: drawn, run forward and backward, and held to the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor

from regard._call import make_call
from regard._dispatch import choose
from regard.testing.tolerance import assert_close_to_oracle

Operands = tuple[Tensor, Tensor, Tensor]


def operands(*shape: int, dtype: torch.dtype = torch.float32) -> Operands:
    q, k, v = (torch.randn(shape, dtype=dtype) for _ in range(3))
    return q, k, v


def gradients(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, **arguments: Any) -> dict[str, Tensor]:
    """Out, lse and the gradients of the native backend for operands that want them."""
    call = make_call(q, k, v, **arguments).with_(wants_lse=True).seeded()
    result = choose(call, "native").run(call)
    out = call.restore(result.out)
    dq, dk, dv = torch.autograd.grad(out, (q, k, v), dout)
    assert result.lse is not None
    return {"out": out, "lse": call.restore(result.lse), "dq": dq, "dk": dk, "dv": dv}


def hold(q: Tensor, k: Tensor, v: Tensor, label: str, **arguments: Any) -> None:
    """Forward and backward against the oracle."""
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    dout = torch.randn(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    found = gradients(q, k, v, dout, **arguments)
    assert_close_to_oracle(found, q, k, v, dout=dout, label=label, **arguments)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Another interpreter, that no other test has touched."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

"""What a call asks of the kernels beside its tensors, the C struct that says it, and the call through the C ABI."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

from torch import Tensor

from regard.backends.native import library
from regard.backends.native.abi import DTYPES, CallView, TensorView
from regard.backends.native.masks import KernelMask
from regard.backends.native.scores import Added

_CHUNK_KEYS = 384
_SPLIT = 4
_MANY_TASKS = 16
_FLAGS = {
    1: "the kernels found no memory for what they pack: free some, or give fewer heads or tokens to a call",
    2: "the compiled kernels belong to another version of regard: install it again",
}


@dataclass(frozen=True, eq=False)
class Plan:
    """What a call needs besides its differentiable tensors.

    Attributes:
        mask: the mask in the kernels' form.
        changes: the score changes in order; the tables of `Added` are the differentiable inputs themselves.
        scale: factor of ``q kᵀ``.
        dropout_p: probability of dropping a weight.
        seed: of the dropout, or None.
        stats: the statistics of the rows that are wanted too, out of `STATS`.
    """

    mask: KernelMask
    changes: tuple[float | Added, ...]
    scale: float
    dropout_p: float
    seed: int | None
    stats: tuple[str, ...] = ()


def view_of(plan: Plan, q: Tensor, k: Tensor, v: Tensor) -> CallView:
    """The C struct of a call, without what is only forward's or backward's."""
    view = CallView(
        ctypes.sizeof(CallView), DTYPES[q.dtype], library.threads(), library.parallel(),
        q.shape[0], k.shape[1], q.shape[1] // max(k.shape[1], 1), q.shape[2], k.shape[2], q.shape[3], v.shape[3],
        plan.scale, 1 / (1 - plan.dropout_p),
        TensorView.of(q), TensorView.of(k), TensorView.of(v),
    )  # fmt: skip
    view.mask = plan.mask.view
    view.scores_count, view.dropout = len(plan.changes), plan.seed is not None
    if plan.seed is not None:
        view.seed, view.drop_below = plan.seed, int(plan.dropout_p * 2**32)
    return view


def chunks_for(tasks: int, threads: int, k_len: int, *, even: bool = False) -> int:
    """Into how many parts the keys are split so that every thread has work; a part is at least `_CHUNK_KEYS` long.

    With ``even``, a few tasks that threads cannot share evenly are split too.
    """
    if tasks == 0 or tasks >= (4 * threads if even else threads) or (even and tasks % threads == 0):
        return 1
    wanted = -(-2 * threads // tasks)
    if even and tasks > threads:
        wanted = min(threads // math.gcd(tasks, threads), -(-4 * threads // tasks))
    return max(min(wanted, k_len // _CHUNK_KEYS), 1)


def owners_for(tasks: int, threads: int, k_len: int) -> int:
    """As `chunks_for`, for a backward pass: every part has a dq of its own, so there are as few as keep all busy.

    Of more heads than threads the kernels split the last ones only, so that no thread waits for a slower one.
    """
    if 0 < tasks < threads and threads % tasks == 0:
        return max(min(threads // tasks, k_len // _CHUNK_KEYS), 1)
    if 1 < threads <= tasks < _MANY_TASKS * threads:
        return max(min(_SPLIT, k_len // _CHUNK_KEYS), 1)
    return chunks_for(tasks, threads, k_len)


def run(name: str, view: CallView) -> None:
    """Call the kernels' function of that name."""
    check(getattr(library.kernels(), name)(view))


def check(flag: int) -> None:
    """Raise when the kernels say that they could not."""
    if flag:
        raise RuntimeError(_FLAGS[flag])

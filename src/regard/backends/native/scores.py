"""Score changes in the form the kernels read: a cap, or a tensor that is added by strides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates
from regard.backends.native import recycling
from regard.backends.native.abi import MAX_SCORES, ScoreKind, ScoreView, readable
from regard.scores import Alibi, Bias, RelativeBias, ScoreModification, Softcap


@dataclass(frozen=True, eq=False)
class Added:
    """A float32 tensor that is added to the scores.

    Attributes:
        table: ``(B, H, q_len, k_len)`` with sizes 1 where it broadcasts; or, by distance, ``(H, q_len + k_len - 1)``,
            whose entry ``j - i + q_len - 1`` belongs to row i and column j.
        by_distance: which of the two.
    """

    table: Tensor
    by_distance: bool


def unsupported(call: Call) -> Iterable[str]:
    """Why the kernels cannot do these score changes, one sentence a reason."""
    known = (Softcap, Alibi, Bias, RelativeBias)
    for mod in call.score_mods:
        if not isinstance(mod, known):
            yield f"knows {', '.join(kind.__name__ for kind in known)}, and the call has {mod!r}"
        elif isinstance(mod, (Alibi, RelativeBias)) and not call.frame.by_default:
            yield f"knows {type(mod).__name__} at default positions only, and the call gives positions"
    if len(call.score_mods) > MAX_SCORES:
        yield f"takes at most {MAX_SCORES} score changes, and the call has {len(call.score_mods)}"
    if sum(isinstance(mod, Softcap) for mod in call.score_mods) > 1:
        yield "takes one Softcap, and the call has several"


def changes(call: Call) -> list[float | Added]:
    """The score changes in order: a cap as a number, whatever is added as a tensor that autograd follows."""
    return [mod.cap if isinstance(mod, Softcap) else _added(mod, call) for mod in call.score_mods]


def _added(mod: ScoreModification, call: Call) -> Added:
    if isinstance(mod, Bias):
        table = mod.bias.to(torch.float32)
        table = table.reshape((1,) * (4 - table.ndim) + tuple(table.shape))
        return Added(readable(table), False)
    _, heads, q_len, k_len = *call.q.shape[:3], call.k.shape[2]
    device = call.q.device
    distance = torch.arange(1 - k_len, max(q_len, 1 - k_len), device=device)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    at = Coordinates(zero, torch.arange(heads, device=device)[:, None], zero, zero, distance * 0, distance)
    return Added(mod.modify(torch.zeros(heads, distance.shape[0], device=device), at).contiguous(), True)


def view(change: float | Added, q_len: int, grad: Tensor | None = None) -> ScoreView:
    """What the kernels read of one change; ``grad`` as `gradient_buffer` makes it."""
    if not isinstance(change, Added):
        return ScoreView(ScoreKind.CAP, change)
    result = ScoreView(ScoreKind.ADD)
    first = q_len - 1 if change.by_distance else 0
    result.data = change.table.data_ptr() + 4 * first
    result.batch, result.head, result.row, result.column = _strides(change, change.table)
    if grad is not None:
        result.grad = grad.data_ptr() + 4 * first
        result.grad_chunk = grad.stride(0) if grad.shape[0] > 1 else 0
        result.grad_batch, result.grad_head, result.grad_row, result.grad_column = _strides(change, grad[0])
    return result


def gradient_buffer(change: Added, chunks: int, batch: int, heads: int) -> Tensor:
    """Zeros for the gradient: a copy for every task that could write to the same place."""
    if change.by_distance:
        return change.table.new_zeros((chunks, batch, *change.table.shape))
    _, _, rows, columns = change.table.shape
    return recycling.zeros(chunks if columns == 1 else 1, batch, heads, rows, columns)


def gradient(change: Added, buffer: Tensor) -> Tensor:
    """The gradient of the table out of its filled buffer."""
    if change.by_distance:
        return buffer.sum((0, 1))
    # Without a copy where there is nothing to add: the table may be as large as the scores.
    whole = buffer[0] if buffer.shape[0] == 1 else buffer.sum(0)
    return whole if whole.shape == change.table.shape else whole.sum_to_size(change.table.shape)


def _strides(change: Added, table: Tensor) -> tuple[int, int, int, int]:
    """The strides by which the kernels read ``table``, of the shape of the change's own or of its gradient buffer."""
    if change.by_distance:
        batch = table.stride(0) if table.ndim == 3 else 0
        return batch, table.stride(-2), -1, 1
    batch, head, row, column = (stride if n > 1 else 0 for n, stride in zip(table.shape, table.stride(), strict=True))
    return batch, head, row, column

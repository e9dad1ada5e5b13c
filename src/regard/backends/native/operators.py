"""The kernels as operators of torch, for `torch.compile` and `torch.export`; eager calls take the shorter way.

``regard::attention`` and ``regard::attention_backward`` take a mask as `spelling` writes it and analyse it as they run,
so that a graph knows nothing of what its tensors hold. They check what they are given again: an exported program or a
caller of ``torch.ops.regard`` comes to them without passing `regard.attention`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard._autocast import without_autocast
from regard._call import Call, make_call
from regard._derivatives import no_second
from regard._errors import ArgumentError, ShapeError, UnsupportedError
from regard.backends.native import library, limits, masks, spelling
from regard.backends.native.abi import readable
from regard.backends.native.function import Saved, backward, forward, forward_and_save
from regard.backends.native.plan import Plan
from regard.backends.native.scores import Added

_OPERANDS = "Tensor q, Tensor k, Tensor v, Tensor? sinks, Tensor[] tables"
_REST = (
    "Tensor[] mask_tensors, Tensor? q_positions, Tensor? k_positions, Tensor? seed, str mask, SymInt[] mask_numbers, "
    "str changes, float[] caps, float scale, float dropout_p"
)
_library = torch.library.Library("regard", "DEF")
_library.define(f"attention({_OPERANDS}, {_REST}, bool save) -> (Tensor, Tensor, Tensor, Tensor)")
_library.define(
    f"attention_backward(Tensor grad_out, Tensor? grad_lse, {_OPERANDS}, Tensor lse, Tensor norms, Tensor exact_out, "
    f"{_REST}, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor[])"
)


class _Rest(NamedTuple):
    """The arguments that forward and backward share and that want no gradient."""

    mask_tensors: list[Tensor]
    q_positions: Tensor | None
    k_positions: Tensor | None
    seed: Tensor | None
    mask: str
    mask_numbers: list[int]
    changes: str
    caps: list[float]
    scale: float
    dropout_p: float


def attention(call: Call, q: Tensor, k: Tensor, v: Tensor, changes: list[float | Added]) -> tuple[Tensor, Tensor]:
    """``out`` and ``lse`` of a call by the operator, which a graph can hold."""
    spelled = spelling.spell(call.mask)
    assert spelled is not None
    text, numbers, tensors = spelled
    tables = [change.table for change in changes if isinstance(change, Added)]
    words = [("distance" if c.by_distance else "add") if isinstance(c, Added) else "cap" for c in changes]
    caps = [float(change) for change in changes if not isinstance(change, Added)]
    assert not isinstance(call.seed, int)
    positions = (call.frame.q_positions, call.frame.k_positions)
    rest = _Rest(tensors, *positions, call.seed, text, numbers, " ".join(words), caps, call.scale, call.dropout_p)
    out, lse, _, _ = torch.ops.regard.attention(q, k, v, call.sinks, tables, *rest, call.needs_grad)
    return out, lse


def _prepared(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, tables: list[Tensor], rest: _Rest
) -> tuple[Plan, Tensor, Tensor, Tensor]:
    """The checked plan of a call, and its operands with a unit last stride."""
    absent = library.missing()
    mask = spelling.read(rest.mask, rest.mask_numbers, rest.mask_tensors)
    call = make_call(
        q, k, v, mask=mask, scale=rest.scale, dropout_p=rest.dropout_p,
        sinks=sinks, q_positions=rest.q_positions, k_positions=rest.k_positions,
    )  # fmt: skip
    reasons = [absent] if absent else [*limits.dtypes(call), *limits.widths(call), *limits.lengths(call)]
    if not reasons:
        reasons = [why for why in [masks.too_large(mask, call.frame)] if why]
    if reasons:
        raise UnsupportedError(f"the operator regard::attention cannot do this call: it {'; '.join(reasons)}.", reasons)
    changes = _changes(call, tables, rest)
    seed = None if rest.seed is None else int(rest.seed)
    plan = Plan(masks.kernel_mask(call.mask, call.frame, call.group), changes, call.scale, call.dropout_p, seed)
    return plan, readable(q), readable(k), readable(v)


def _changes(call: Call, tables: list[Tensor], rest: _Rest) -> tuple[float | Added, ...]:
    words = rest.changes.split()
    caps, left = iter(rest.caps), iter(tables)
    counts = [words.count(word) for word in ("cap", "add", "distance")]
    if counts[0] != len(rest.caps) or sum(counts[1:]) != len(tables) or sum(counts) != len(words):
        raise ArgumentError(
            "changes names each score change, cap, add or distance, each with its cap or table: got "
            f"{rest.changes!r}, {len(rest.caps)} caps and {len(tables)} tables."
        )

    def change(word: str) -> float | Added:
        if word == "cap":
            return next(caps)
        by_distance = word == "distance"
        return Added(_table(call, next(left), by_distance=by_distance), by_distance)

    return tuple(change(word) for word in words)


def _table(call: Call, table: Tensor, *, by_distance: bool) -> Tensor:
    frame = call.frame
    if by_distance:
        want: tuple[int, ...] = (frame.heads, max(frame.q_len + frame.k_len - 1, 0))
        fits = tuple(table.shape) == want
    else:
        want = (frame.batch, frame.heads, frame.q_len, frame.k_len)
        fits = table.ndim == 4 and all(n in (1, m) for n, m in zip(table.shape, want, strict=True))
    if not fits or table.dtype != torch.float32:
        raise ShapeError(f"a table of scores must be float32 {want}: got {table.dtype} {tuple(table.shape)}.")
    return table.contiguous() if by_distance else readable(table)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, tables: list[Tensor], *more: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *rest, save = more
    with without_autocast(q.device):
        plan, q, k, v = _prepared(q, k, v, sinks, tables, _Rest(*rest))
        # A graph is told one layout of out, whatever that of q is when it runs.
        room = q.new_empty((*q.shape[:3], v.shape[3]))
        if not save:
            out, lse, _ = forward(plan, q, k, v, sinks, room)
            return out, lse, lse.new_empty(0), lse.new_empty(0)
        out, lse, _, saved = forward_and_save(plan, q, k, v, sinks, room)
    # An operator returns no tensor twice.
    return out, lse, saved.norms, lse.new_empty(0) if saved.exact_out is out else saved.exact_out


def _backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None,
    tables: list[Tensor], lse: Tensor, norms: Tensor, exact_out: Tensor, *more: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    *rest, wanted = more
    with without_autocast(q.device):
        plan, q, k, v = _prepared(q, k, v, sinks, tables, _Rest(*rest))
        saved = Saved(q, k, v, sinks, *(x.contiguous() for x in (lse, norms, exact_out)))
        grad_q, grad_k, grad_v, grad_sinks, *grads = backward(plan, saved, grad_out, grad_lse, tuple(wanted))
    assert grad_q is not None
    assert grad_k is not None
    assert grad_v is not None
    empty = (lse.new_empty(0) for _ in range(1 + len(grads)))
    filled = [next(empty) if x is None else x.contiguous() for x in grads]
    return grad_q, grad_k, grad_v, next(empty) if grad_sinks is None else grad_sinks, filled


def _fake_forward(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, tables: list[Tensor], *more: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    save, rows = more[-1], tuple(q.shape[:3])
    out = q.new_empty((*rows, v.shape[3]))
    lse = q.new_empty(rows, dtype=torch.float32)
    exact = (*rows, v.shape[3]) if save and q.dtype != torch.float32 else (0,)
    return out, lse, lse.new_empty((*rows, 2) if save else (0,)), lse.new_empty(exact)


def _fake_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None,
    tables: list[Tensor], lse: Tensor, *more: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    grads = [t.new_empty(t.shape if wants else (0,)) for t, wants in zip(tables, more[-1], strict=True)]
    grad_sinks = lse.new_empty(0) if sinks is None else sinks.new_empty(sinks.shape)
    return (*(x.new_empty(x.shape) for x in (q, k, v)), grad_sinks, grads)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, sinks, tables, *rest, _ = inputs
    given = _Rest(*rest)
    out, lse, norms, exact_out = output
    optional = (sinks, given.q_positions, given.k_positions, given.seed)
    ctx.save_for_backward(
        q, k, v, lse, norms, exact_out if exact_out.numel() else out, *optional, *tables, *given.mask_tensors
    )
    ctx.tables = len(tables)
    # torch wants a list of None for every list of tensors, and takes an empty list for one.
    lists = [(field, x) for field, x in zip(_Rest._fields, given, strict=True) if isinstance(x, (list, tuple))]
    ctx.lists = {field: len(x) for field, x in lists if all(isinstance(t, Tensor) for t in x)}
    ctx.structure = (given.mask, given.mask_numbers, given.changes, given.caps, given.scale, given.dropout_p)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    q, k, v, lse, norms, exact_out, sinks, q_positions, k_positions, seed, *lists = ctx.saved_tensors
    tables, mask_tensors = lists[: ctx.tables], lists[ctx.tables :]
    wanted = list(ctx.needs_input_grad[4])
    grad_out = torch.zeros_like(exact_out, dtype=q.dtype) if grad_out is None else grad_out
    grad_q, grad_k, grad_v, grad_sinks, grads = torch.ops.regard.attention_backward(
        grad_out, grad_lse, q, k, v, sinks, tables, lse, norms, exact_out,
        mask_tensors, q_positions, k_positions, seed, *ctx.structure, wanted,
    )  # fmt: skip
    of_tables = [grad if wants else None for grad, wants in zip(grads, wanted, strict=True)]
    grad_sinks = None if sinks is None else grad_sinks
    rest = [[None] * ctx.lists[field] if field in ctx.lists else None for field in _Rest._fields]
    return grad_q, grad_k, grad_v, grad_sinks, of_tables, *rest, None


def _refuse(ctx: Any, *_: Any) -> Any:
    raise no_second()


_library.impl("attention", _forward, "CPU")
_library.impl("attention_backward", _backward, "CPU")
# `torch.library.register_fake` would do the same, and search every loaded module for its caller at import.
_library.impl("attention", _fake_forward, "Meta")
_library.impl("attention_backward", _fake_backward, "Meta")
torch.library.register_autograd("regard::attention", _differentiate, setup_context=_setup_context, lib=_library)
torch.library.register_autograd("regard::attention_backward", _refuse, lib=_library)

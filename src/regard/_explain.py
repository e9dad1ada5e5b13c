"""`regard.explain`: what `regard.attention` would do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from regard._call import Call, make_call
from regard._dispatch import backend as named
from regard._dispatch import choose, judge
from regard._errors import UnsupportedError
from regard._plan import Blocks, Plan
from regard.masks import Coverage, Mask
from regard.scores import ScoreModification

_BLOCK = (64, 64)
_COUNTABLE_PAIRS = 1 << 28
_STRIP_PAIRS = 1 << 22


def explain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask | None = None,
    score_mod: ScoreModification | Sequence[ScoreModification] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    sinks: Tensor | None = None,
    q_positions: Tensor | None = None,
    k_positions: Tensor | None = None,
    backend: str | None = None,
) -> Plan:
    """What `regard.attention` would do with these arguments: which backend, why no other, and what it costs.

    The arguments are those of `regard.attention`. Only the mask's block structure is worked out; no attention is
    computed and no random number drawn. A backend asked for by name that cannot do the call gives a plan with its
    reasons instead of an error.

    Returns:
        `Plan`; print it.

    Raises:
        ShapeError, KindError, ArgumentError: as told by `regard.attention`.

    >>> q, k, v = torch.randn(3, 1, 4, 1000, 64).unbind()
    >>> explain(q, k, v, mask=Causal() & SlidingWindow(63), backend="torch").backend
    'torch'
    """
    call = make_call(
        q,
        k,
        v,
        mask=mask,
        score_mod=score_mod,
        scale=scale,
        dropout_p=dropout_p,
        sinks=sinks,
        q_positions=q_positions,
        k_positions=k_positions,
    )
    try:
        chosen = choose(call, backend).name
    except UnsupportedError:
        chosen = None
    batch, heads, q_len, _ = call.q.shape
    pairs = batch * heads * q_len * call.frame.k_len
    closed = call.mask.intervals(call.frame) is not None
    countable = closed or pairs <= _COUNTABLE_PAIRS
    operands = call.q.numel() + call.k.numel() + call.v.numel() + batch * heads * q_len * call.v.shape[3]
    return Plan(
        backend=chosen,
        asked=backend,
        verdicts=judge(call),
        q_shape=_shape(call.q),
        k_shape=_shape(call.k),
        v_shape=_shape(call.v),
        dtype=call.q.dtype,
        device=call.q.device,
        mask=repr(call.mask),
        score_mods=tuple(repr(mod) for mod in call.score_mods),
        pairs=pairs,
        visible_pairs=_visible_pairs(call) if countable else None,
        blocks=_blocks(call) if countable else None,
        operand_bytes=operands * call.q.element_size(),
        extra_bytes=named(chosen).extra_bytes(call) if chosen is not None else None,
    )


def _shape(x: Tensor) -> tuple[int, int, int, int]:
    batch, heads, length, width = x.shape
    return batch, heads, length, width


def _visible_pairs(call: Call) -> int:
    """Visible pairs of all batch entries and query heads, from the mask's intervals or else strip by strip."""
    frame = call.frame
    rows = call.mask.intervals(frame)
    if rows is not None:
        count = int((rows.stop - rows.start).expand(-1, frame.q_len, -1).sum())
        return count * frame.heads * (frame.batch // max(rows.start.shape[0], 1))
    per_row = max(frame.batch * frame.heads * frame.k_len, 1)
    step = max(_STRIP_PAIRS // per_row, 1)
    count = 0
    for first in range(0, frame.q_len, step):
        at = frame.tile(slice(first, min(first + step, frame.q_len)), slice(0, frame.k_len))
        count += int(call.mask.allowed(at).expand(at.shape).sum())
    return count


def _blocks(call: Call) -> Blocks:
    found = call.mask.block_map(call.frame, _BLOCK)
    counts = found.counts()
    # A map of one entry or head stands for all of them.
    times = (call.frame.batch if found.batch == 1 else 1) * (call.frame.heads if found.heads == 1 else 1)
    full, partial, empty = (times * counts[kind] for kind in (Coverage.FULL, Coverage.PARTIAL, Coverage.EMPTY))
    return Blocks(_BLOCK, full, partial, empty)

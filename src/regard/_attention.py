"""`regard.attention`: describe the call, choose a backend, run it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from regard import _ready
from regard._call import make_call
from regard._dispatch import choose
from regard.masks import Mask
from regard.scores import ScoreModification


def attention(
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
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017).

    ``s = scale * q kᵀ`` → score changes in order → mask → softmax (with sinks, if any) → dropout → ``· v``.

    Args:
        q: queries ``(…, H, Lq, D)``; 3 dims ``(H, Lq, D)`` and 2 dims ``(Lq, D)`` (one head) come back with as many.
        k: keys ``(…, Hkv, Lk, D)``; query head ``h`` reads key/value head ``h // (H // Hkv)``.
        v: values ``(…, Hkv, Lk, Dv)``. Leading dims broadcast.
        mask: which query may attend to which key, e.g. ``Causal() & Document(ids)``; default: all. True = may attend.
        score_mod: one score change or a list, e.g. ``Softcap(30.0)``.
        scale: factor of the dot products; default ``1/√D``.
        dropout_p: probability with which a weight is dropped; the others are scaled by ``1/(1-p)``. The same
            `torch.manual_seed` drops the same weights on every backend.
        sinks: ``(H,)``, one extra logit a head in the softmax's denominator (gpt-oss, OpenAI 2025).
        q_positions: int64 ``(Lq,)`` or ``(B, Lq)``: absolute positions for masks and score changes; default
            ``Lk - Lq … Lk - 1``, so that the last query stands at the last key.
        k_positions: the same for the keys; default ``0 … Lk - 1``.
        backend: ``"native"``, ``"torch"``, ``"flex"``, ``"blockwise"`` or ``"reference"``; default: the best that can
            do the call, as `regard.explain` tells.

    Returns:
        ``(…, H, Lq, Dv)`` in the dtype of q. A query that sees no key gives 0, with gradient 0.

    Raises:
        ShapeError: sizes that do not fit together.
        KindError: a wrong type or dtype, e.g. a bare tensor as ``mask=``.
        ArgumentError: a value outside its domain, tensors on different devices.
        UnsupportedError: the backend asked for cannot do the call; its reasons are listed.

    >>> q, k, v = torch.randn(3, 1, 4, 10, 8).unbind()
    >>> attention(q, k, v, mask=Causal() & SlidingWindow(3), score_mod=Softcap(30.0)).shape
    torch.Size([1, 4, 10, 8])
    """
    # The compiler cannot trace `not` of a tuple.
    unchanged = score_mod is None or (isinstance(score_mod, (list, tuple)) and len(score_mod) == 0)
    plain = unchanged and sinks is None and q_positions is None and k_positions is None and not dropout_p
    key = _ready.key_of(q, k, v, mask, scale, backend) if plain else None
    if key is not None:
        runner = _ready.find(key)
        if runner is not None:
            return runner(q, k, v)
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
    chosen = choose(call, backend)
    if key is not None and call.lead == q.shape[:1] == k.shape[:1] == v.shape[:1]:
        runner = chosen.ready(call)
        if runner is not None:
            # The first call goes the way of the later ones: what checkpointing recomputes must save the same tensors.
            _ready.keep(key, runner)
            return runner(q, k, v)
    return call.restore(chosen.run(call.seeded()).out)

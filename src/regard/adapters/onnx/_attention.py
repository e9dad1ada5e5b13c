"""The ``Attention`` operator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from regard._attention import attention as _attention
from regard._coordinates import Frame
from regard._errors import ArgumentError, KindError, ShapeError, describe, got
from regard._inspect import inspect
from regard.adapters._nearest import nearest
from regard.adapters.onnx._heads import split
from regard.masks import Causal, Dense, Everything, Mask, Padding, SlidingWindow
from regard.scores import Bias, ScoreModification, Softcap

OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")
"""The outputs of the ``Attention`` operator, in its order."""

_SINCE = {
    "is_causal": 23,
    "kv_num_heads": 23,
    "q_num_heads": 23,
    "qk_matmul_output_mode": 23,
    "scale": 23,
    "softcap": 23,
    "softmax_precision": 23,
    "left_window_size": 25,
    "right_window_size": 25,
}
"""The operator's attributes and the opset that brought each."""

_PRECISIONS = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
"""ONNX's codes of the float types that a softmax may be asked to run in."""


class _Problem(NamedTuple):
    """The operator's call in regard's words."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask
    softcap: list[ScoreModification]
    bias: list[ScoreModification]
    scale: float
    q_positions: Tensor

    def arguments(self) -> dict[str, Any]:
        return {
            "mask": self.mask,
            "score_mod": self.softcap + self.bias,
            "scale": self.scale,
            "q_positions": self.q_positions,
        }


def attention(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    opset: int = 25,
    outputs: Iterable[str] = ("Y",),
    **attributes: float | None,
) -> tuple[Tensor, ...]:
    """The ONNX ``Attention`` operator on regard's engine.

    ``scale · Q Kᵀ`` → softcap → mask → softmax → ``· V``. Optional inputs that a node leaves out are None.

    Args:
        Q: ``(B, H, L, D)`` or ``(B, L, H * D)``.
        K: ``(B, Hkv, S, D)`` or ``(B, S, Hkv * D)``, of as many dims as Q.
        V: ``(B, Hkv, S, Dv)`` or ``(B, S, Hkv * Dv)``.
        attn_mask: of 1 to 4 dims, broadcastable to ``(B, H, L, S)``: bool, True = may attend, or added to the scores.
        past_key: ``(B, Hkv, P, D)``, keys before K.
        past_value: ``(B, Hkv, P, Dv)``.
        nonpad_kv_seqlen: ints ``(B,)``, how many keys of each entry are real. Not together with a past.
        opset: 23, 24 or 25; what came later than this is refused.
        outputs: the outputs to return, some of ``"Y"``, ``"present_key"``, ``"present_value"``,
            ``"qk_matmul_output"``. The last is a dense ``(B, H, L, S)``.
        attributes: those of the operator: ``is_causal``, ``scale``, ``softcap``, ``q_num_heads``, ``kv_num_heads``,
            ``left_window_size``, ``right_window_size`` (other keys, inclusive; -1 = all), ``softmax_precision``, and
            ``qk_matmul_output_mode`` (0 scores, 1 after softcap, 2 after the mask, 3 probabilities). None is the
            default. A softmax precision below float32 is exceeded; double computes the whole call in it.

    Returns:
        The outputs asked for, in that order. A query that may attend to nothing gives 0, and probabilities 0.

    Raises:
        ArgumentError: unknown attribute, output or opset; an attribute that the opset lacks or a value out of domain.
        ShapeError: wrong ranks, sizes that do not fit.
        KindError: dtypes that do not fit.

    >>> Q, K, V = torch.randn(3, 2, 4, 5, 8).unbind()
    >>> Y, present_key = attention(Q, K, V, is_causal=1, outputs=("Y", "present_key"))
    >>> Y.shape, present_key.shape
    (torch.Size([2, 4, 5, 8]), torch.Size([2, 4, 5, 8]))
    """
    outputs = _checked_outputs(outputs)
    given = _checked_attributes(attributes, opset)
    if nonpad_kv_seqlen is not None and opset < 24:
        raise ArgumentError(f"nonpad_kv_seqlen came with opset 24: got opset={opset}.")
    packed = _checked_ranks(Q, K, V)
    q, k, v = _heads(Q, K, V, given, packed=packed, opset=opset)
    k, v = _with_past(k, v, past_key, past_value, nonpad_kv_seqlen)
    past = 0 if past_key is None else past_key.shape[2]
    problem = _problem(q, k, v, attn_mask, past, nonpad_kv_seqlen, given)
    made = {"present_key": k, "present_value": v}
    mode = int(given.get("qk_matmul_output_mode", 0))
    double = given.get("softmax_precision") == 11
    if double:
        problem = problem._replace(q=q.double(), k=k.double(), v=v.double())
    if "qk_matmul_output" in outputs and mode == 3:
        seen = inspect(problem.q, problem.k, problem.v, **problem.arguments())
        y = seen.out
        made["qk_matmul_output"] = seen.weights.dense(max_bytes=seen.weights.shape.numel() * 8).to(Q.dtype)
    else:
        y = _attention(problem.q, problem.k, problem.v, **problem.arguments())
        if "qk_matmul_output" in outputs:
            made["qk_matmul_output"] = _scores(problem, mode).to(Q.dtype)
    y = y.to(Q.dtype)
    made["Y"] = y.transpose(1, 2).flatten(2) if packed else y
    return tuple(made[name] for name in outputs)


def _checked_outputs(outputs: Iterable[str]) -> tuple[str, ...]:
    outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    for name in outputs:
        if name not in OUTPUTS:
            known = ", ".join(map(repr, OUTPUTS))
            raise ArgumentError(f"Attention has the outputs {known}: got {name!r}.{nearest(str(name), OUTPUTS)}")
    return outputs


def _checked_attributes(attributes: dict[str, float | None], opset: int) -> dict[str, float]:
    if opset not in (23, 24, 25):
        raise ArgumentError(f"the Attention operator is that of opset 23, 24 or 25: got opset={opset!r}.")
    for name in attributes:
        if name not in _SINCE:
            raise ArgumentError(
                f"Attention has the attributes {', '.join(_SINCE)}: got {name!r}.{nearest(name, _SINCE)}"
            )
        if _SINCE[name] > opset:
            raise ArgumentError(f"{name} came with opset {_SINCE[name]}: got it with opset={opset}.")
    given = {name: value for name, value in attributes.items() if value is not None}
    if given.get("qk_matmul_output_mode", 0) not in (0, 1, 2, 3):
        raise ArgumentError(f"qk_matmul_output_mode is 0, 1, 2 or 3: got {given['qk_matmul_output_mode']!r}.")
    if given.get("softmax_precision", 1) not in _PRECISIONS:
        raise ArgumentError(
            f"softmax_precision is ONNX's code of a float type, one of {sorted(_PRECISIONS)}: got "
            f"{given['softmax_precision']!r}."
        )
    if given.get("softcap", 0) < 0:
        raise ArgumentError(f"softcap is positive, or 0 for none: got {given['softcap']!r}.")
    for name in ("left_window_size", "right_window_size"):
        if given.get(name, -1) < -1:
            raise ArgumentError(f"{name} counts keys, or is -1 for all: got {given[name]!r}.")
    return given


def _checked_ranks(Q: Tensor, K: Tensor, V: Tensor) -> bool:
    """True for three-dimensional operands."""
    operands = {"Q": Q, "K": K, "V": V}
    for name, x in operands.items():
        if not isinstance(x, Tensor):
            raise KindError(f"{name} must be a tensor: got {describe(x)}. Convert arrays with torch.as_tensor(...).")
    if {x.ndim for x in operands.values()} not in ({3}, {4}):
        raise ShapeError(
            "Q, K and V must all be (B, heads, tokens, features), or all (B, tokens, heads * features): "
            f"{got(operands)}."
        )
    return Q.ndim == 3


def _heads(
    Q: Tensor, K: Tensor, V: Tensor, given: dict[str, float], *, packed: bool, opset: int
) -> tuple[Tensor, Tensor, Tensor]:
    heads, kv_heads = given.get("q_num_heads"), given.get("kv_num_heads")
    if packed:
        k, v = (split(name, x, kv_heads, "kv_num_heads") for name, x in (("K", K), ("V", V)))
        return split("Q", Q, heads, "q_num_heads"), k, v
    for name, said, x in (("q_num_heads", heads, Q), ("kv_num_heads", kv_heads, K)):
        if said is not None and (opset >= 25 or said != x.shape[1]):
            raise ArgumentError(
                f"{name} is for operands of 3 dims; those of 4 dims show their heads: got {name}={said!r} and "
                f"{x.shape[1]} heads. Leave it out."
            )
    return Q, K, V


def _with_past(
    k: Tensor, v: Tensor, past_key: Tensor | None, past_value: Tensor | None, nonpad_kv_seqlen: Tensor | None
) -> tuple[Tensor, Tensor]:
    if past_key is None and past_value is None:
        return k, v
    past = {"past_key": past_key, "past_value": past_value}
    if past_key is None or past_value is None:
        raise ArgumentError(f"past_key and past_value come together: {got(past)}.")
    if nonpad_kv_seqlen is not None:
        raise ArgumentError(
            "nonpad_kv_seqlen counts keys of a cache outside of the operator, so that it has no past_key."
        )
    for name, old, new in (("past_key", past_key, k), ("past_value", past_value, v)):
        if old.ndim != 4 or (*old.shape[:2], old.shape[3]) != (*new.shape[:2], new.shape[3]):
            batch, heads, _, features = new.shape
            raise ShapeError(f"{name} must be ({batch}, {heads}, past tokens, {features}): {got(past)}.")
    return torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)


def _problem(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None,
    past: int,
    nonpad_kv_seqlen: Tensor | None,
    given: dict[str, float],
) -> _Problem:
    rows = torch.arange(q.shape[2], device=q.device)
    mask: Mask = Everything()
    positions = rows + past
    if nonpad_kv_seqlen is not None:
        real = nonpad_kv_seqlen.to(torch.int64)
        mask = Padding(real)
        positions = rows + (real[:, None] - q.shape[2])
    if given.get("is_causal"):
        mask &= Causal()
    left, right = (int(given.get(name, -1)) for name in ("left_window_size", "right_window_size"))
    if left >= 0 or right >= 0:
        mask &= SlidingWindow(left if left >= 0 else None, right if right >= 0 else None)
    bias: list[ScoreModification] = []
    if attn_mask is not None:
        if not 1 <= attn_mask.ndim <= 4:
            raise ShapeError(
                f"attn_mask has 1 to 4 dims and broadcasts to (B, H, L, S): {got({'attn_mask': attn_mask})}."
            )
        missing = max(k.shape[2] - attn_mask.shape[-1], 0)
        if attn_mask.dtype == torch.bool:
            mask &= Dense(pad(attn_mask, (0, missing), value=False))
        else:
            added = attn_mask if attn_mask.is_floating_point() else attn_mask.to(q.dtype)
            bias = [Bias(pad(added, (0, missing), value=-torch.inf))]
    cap = given.get("softcap", 0)
    scale = given.get("scale")
    return _Problem(
        q,
        k,
        v,
        mask,
        [Softcap(cap)] if cap else [],
        bias,
        float(q.shape[3] ** -0.5 if scale is None else scale),
        positions,
    )


def _scores(problem: _Problem, mode: int) -> Tensor:
    """The scores before (0) and after (1) the softcap, and after the mask (2), all of them."""
    q, k = problem.q, problem.k
    frame = Frame.of(q.shape[0], q.shape[1], q.shape[2], k.shape[2], problem.q_positions, None, q.device)
    accurate = torch.promote_types(q.dtype, torch.float32)
    s = problem.scale * (q.to(accurate) @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).to(accurate).mT)
    at = frame.everywhere()
    for mod in (problem.softcap if mode >= 1 else []) + (problem.bias if mode == 2 else []):
        s = mod.modify(s, at)
    return torch.where(problem.mask.over(frame), s, -torch.inf) if mode == 2 else s

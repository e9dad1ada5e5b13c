"""One attention call, checked once: all that a backend sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regard._autocast import autocast_dtype
from regard._coordinates import Frame
from regard._dropout import draw_seed
from regard._errors import ArgumentError, KindError, ShapeError, describe, got
from regard.masks import Everything, Mask
from regard.scores import ScoreModification

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True, eq=False)
class Call:
    """A checked attention call in canonical form.

    Attributes:
        q: ``(B, H, Lq, D)``; the leading dims of the operands are broadcast and flattened row-major to B.
        k: ``(B, Hkv, Lk, D)``.
        v: ``(B, Hkv, Lk, Dv)``.
        mask: what may attend; `Everything` if none was given.
        score_mods: applied in this order.
        scale: factor of ``q kᵀ``.
        dropout_p: probability of dropping a weight.
        seed: of the dropout, in a graph a tensor; None without dropout, and until `seeded`.
        sinks: ``(H,)`` or None.
        frame: sizes and positions.
        lead: the leading dims that ``out`` goes back to; None when the operands had 2 dims.
        wants_lse: whether the caller needs ``lse``; a backend that cannot give it refuses then.
        stats: names of row statistics that the same pass should give, out of `regard.backends.base.STATS`.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask
    score_mods: tuple[ScoreModification, ...]
    scale: float
    dropout_p: float
    seed: int | Tensor | None
    sinks: Tensor | None
    frame: Frame
    lead: tuple[int, ...] | None
    wants_lse: bool = False
    stats: tuple[str, ...] = ()

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.q.shape[1] // self.k.shape[1] if self.k.shape[1] else 1

    @property
    def accumulation_dtype(self) -> torch.dtype:
        """float64 for float64 inputs, else float32."""
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32

    def score_tensors(self) -> tuple[Tensor, ...]:
        """The tensors of the score changes that may want a gradient, each once, wherever it is used."""
        found = {id(t): t for mod in self.score_mods for t in self.tensors_of(mod)}
        return tuple(found.values())

    def tensors_of(self, mod: ScoreModification) -> tuple[Tensor, ...]:
        """The tensors of one score change that may want a gradient."""
        empty = 0 in (*self.q.shape[:3], self.frame.k_len)
        frame = Frame(1, 1, 1, 1, device=self.q.device) if empty else self.frame
        one = slice(0, 1)
        return mod.tensors(frame.tile(one, one, one, one), self.accumulation_dtype)

    @property
    def needs_grad(self) -> bool:
        """True when a gradient of this call may be asked for."""
        if not torch.is_grad_enabled():
            return False
        tensors = (self.q, self.k, self.v, *((self.sinks,) if self.sinks is not None else ()), *self.score_tensors())
        return any(t.requires_grad for t in tensors)

    def restore(self, x: Tensor) -> Tensor:
        """``x (B, H, …)`` with the leading dims of the operands."""
        if self.lead is None:
            return x[0, 0]
        return x.reshape(*self.lead, *x.shape[1:])

    def seeded(self) -> Call:
        """This call with its dropout's seed drawn, which is the last thing before it runs: a refusal draws nothing."""
        return self.with_(seed=draw_seed()) if self.dropout_p > 0 else self

    def with_(self, **changes: object) -> Call:
        """This call with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]  # the fields are checked where they are made


def make_call(
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
) -> Call:
    """Check everything and put it into canonical form; nothing is computed and no random number drawn.

    Raises:
        ShapeError, KindError, ArgumentError: as told by `regard.attention`.
    """
    q, k, v = _operands(q, k, v)
    lead = _lead(q, k, v)
    batch = math.prod(lead) if lead else 1
    flat_q, flat_k, flat_v = (_flatten(x, lead or (), batch) for x in (q, k, v))
    heads, q_len, k_len = flat_q.shape[1], flat_q.shape[2], flat_k.shape[2]
    frame = Frame.of(batch, heads, q_len, k_len, q_positions, k_positions, q.device)
    mask = checked_mask(mask)
    mask.check(frame)
    mods = checked_score_mods(score_mod)
    for mod in mods:
        mod.check(frame)
    scale = _checked_scale(scale, q.shape[-1])
    check_dropout(dropout_p)
    _check_sinks(sinks, heads, q.device)
    return Call(flat_q, flat_k, flat_v, mask, mods, scale, float(dropout_p), None, sinks, frame, lead)


def _operands(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    operands = {"q": q, "k": k, "v": v}
    for name, x in operands.items():
        if not isinstance(x, Tensor):
            raise KindError(
                f"q, k and v must be tensors: got {name} {describe(x)}. Convert arrays with torch.as_tensor(...)."
            )
        if x.ndim < 2:
            raise ShapeError(
                f"{name} must be (…, heads, tokens, features), (heads, tokens, features) or (tokens, features): "
                f"{got(operands)}."
            )
    if len({x.device for x in operands.values()}) > 1:
        raise ArgumentError(f"q, k and v must be on one device: {got(operands)}. Move them with .to(device).")
    dtype = autocast_dtype(q.device)
    if dtype is not None:
        q, k, v = (x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in (q, k, v))
        operands = {"q": q, "k": k, "v": v}
    if len({x.dtype for x in operands.values()}) > 1:
        raise KindError(f"q, k and v must share one dtype: {got(operands)}. Convert them with .to(dtype).")
    if q.dtype not in DTYPES:
        raise KindError(
            f"attention takes float32, bfloat16, float16 or float64: {got(operands)}. Convert them with .to(dtype)."
        )
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(f"q and k must have the same number of features, their last dim: {got(operands)}.")
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"k and v must have the same number of tokens, their second last dim: {got(operands)}.")
    heads, kv_heads, v_heads = (x.shape[-3] if x.ndim > 2 else 1 for x in (q, k, v))
    if kv_heads != v_heads:
        raise ShapeError(f"k and v must have the same number of heads: {got(operands)}.")
    if heads != kv_heads and (kv_heads == 0 or heads % kv_heads):
        raise ShapeError(
            f"every key/value head serves the same number of query heads, so H % Hkv must be 0: got H = {heads} and "
            f"Hkv = {kv_heads}; {got(operands)}."
        )
    return q, k, v


def _lead(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, ...] | None:
    """The broadcast leading dims; None when all three operands are ``(tokens, features)``."""
    if max(x.ndim for x in (q, k, v)) == 2:
        return None
    shapes = [x.shape[:-3] for x in (q, k, v)]
    # Asking torch takes longer than a small call's whole attention.
    if shapes[0] == shapes[1] == shapes[2]:
        return tuple(shapes[0])
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        raise ShapeError(f"the dims before heads must broadcast together: {got({'q': q, 'k': k, 'v': v})}.") from None


def _flatten(x: Tensor, lead: tuple[int, ...], batch: int) -> Tensor:
    # A view that torch negates when it reads it (`z.conj().imag`) is not what its pointer says.
    x = x.resolve_neg() if not torch.compiler.is_compiling() and x.is_neg() else x
    x = x[None] if x.ndim == 2 else x
    if len(lead) == 1 and x.ndim == 4 and x.shape[0] == lead[0]:
        return x
    return x.expand(*lead, *x.shape[-3:]).reshape(batch, *x.shape[-3:])


def checked_mask(mask: object) -> Mask:
    """``mask`` as a mask, `Everything` for None; raises KindError for anything else."""
    if mask is None:
        return Everything()
    if isinstance(mask, Tensor):
        raise KindError(
            f"mask= takes a mask, not a tensor: got {describe(mask)}. A bool tensor becomes one with Dense(tensor), "
            "where True means may attend (torch.nn.MultiheadAttention's masks mean the opposite: Dense(~tensor)); a "
            "float tensor is added to the scores with score_mod=Bias(tensor)."
        )
    if not isinstance(mask, Mask):
        raise KindError(
            f"mask= takes a mask such as Causal() or Dense(tensor): got {describe(mask)}. A function "
            "fn(b, h, q, k) -> bool becomes one with Predicate(fn)."
        )
    return mask


def checked_score_mods(score_mod: object) -> tuple[ScoreModification, ...]:
    """One score change, several or None as a tuple; raises KindError for anything else."""
    if score_mod is None:
        return ()
    mods = tuple(score_mod) if isinstance(score_mod, (list, tuple)) else (score_mod,)
    for mod in mods:
        if not isinstance(mod, ScoreModification):
            raise KindError(
                f"score_mod= takes one score change such as Softcap(30.0), or a list of them: got {describe(mod)}. A "
                "function fn(s, b, h, q, k) becomes one with ScoreMod(fn), a float tensor with Bias(tensor)."
            )
    return mods


def _checked_scale(scale: object, features: int) -> float:
    if scale is None:
        return 1.0 / math.sqrt(features) if features else 1.0
    if not isinstance(scale, (int, float)) or isinstance(scale, bool):
        raise KindError(f"scale must be a number or None (1/√D): got {describe(scale)}.")
    if not math.isfinite(scale):
        raise ArgumentError(f"scale must be finite: got {scale}.")
    return float(scale)


def check_dropout(p: object, name: str = "dropout_p") -> None:
    """Raise unless ``p`` is a probability below 1: KindError for no number, ArgumentError outside [0, 1)."""
    if not isinstance(p, (int, float)) or isinstance(p, bool):
        raise KindError(f"{name} must be a number: got {describe(p)}.")
    if not 0 <= p < 1:
        raise ArgumentError(f"{name} must be at least 0 and below 1: got {p}.")


def _check_sinks(sinks: object, heads: int, device: torch.device) -> None:
    if sinks is None:
        return
    if not isinstance(sinks, Tensor) or not sinks.is_floating_point():
        raise KindError(f"sinks must be a float tensor, one logit per query head: got {describe(sinks)}.")
    if tuple(sinks.shape) != (heads,):
        raise ShapeError(f"sinks must be (H,) = ({heads},), one logit per query head: got {tuple(sinks.shape)}.")
    if sinks.device != device:
        raise ArgumentError(
            f"sinks must be on the device of q, k and v ({device}): got {describe(sinks)}. Move them with .to(device)."
        )

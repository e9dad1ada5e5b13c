"""torch's fused kernels (`torch.nn.functional.scaled_dot_product_attention`), wherever they mean the same.

They differ from regard's meanings in how causality is aligned, in rows that see nothing, in what hidden NaNs do, and
in which shapes leave the fused path; each difference is mended around the kernel, never left to it:

- causal goes to the kernel as such only where queries and keys end together: square, or after cutting the leading
  queries that stand before every key;
- a row that sees nothing is made to see everything, and its output is replaced by 0, because some kernels give NaN;
- a key that no query sees, and a query that sees nothing, become 0 before anything is multiplied;
- features are padded with zeros to one width, because kernels for ``Dv != D`` hold every score at once;
- on a CPU, bfloat16 and float16 are computed in float32: the kernels round the weights to the inputs' precision, which
  costs several times the error, and are slower for it on processors without matrix units.
"""

from __future__ import annotations

from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor

from regard._autocast import without_autocast
from regard._call import Call
from regard._coordinates import Coordinates
from regard._derivatives import once
from regard.backends.base import Backend, Capabilities, Result
from regard.masks import Causal, Dense, Everything

_SMALL = 512 * 512
"""Pairs up to which a dense mask costs less than planning around its empty blocks."""

_fused = F.scaled_dot_product_attention
"""Bound once, so that a program that puts regard's drop-in into torch's place does not make it call itself."""


class _Form(Enum):
    """How the kernels can be told a mask."""

    ALL = "no mask"
    CAUSAL = "the causal flag"
    KEYS = "one row of keys, the same for every query"
    PAIRS = "a dense Lq x Lk mask"


class TorchKernels(Backend):
    """torch's fused kernels, for calls without score changes, sinks and dropout."""

    name = "torch"
    summary = "torch's fused kernels: plain, causal, padding and dense masks"
    capabilities = Capabilities(score_mods=False, sinks=False, dropout=False, lse_gradient=False, stats=())

    def unsupported(self, call: Call) -> list[str]:
        reasons = super().unsupported(call)
        if call.wants_lse and call.q.device.type != "cpu":
            reasons.append(f"returns lse on cpu only, and the tensors are on {call.q.device.type}")
        return reasons

    def discouraged(self, call: Call) -> list[str]:
        # torch.compile traces this backend and no other fast one.
        if torch.compiler.is_compiling() or _form(call) is not _Form.PAIRS or isinstance(call.mask, Dense):
            return []
        q_len, k_len = call.frame.q_len, call.frame.k_len
        if q_len * k_len <= _SMALL:
            return []
        return [f"would build a dense {q_len} x {k_len} mask and skip nothing"]

    def extra_bytes(self, call: Call) -> int:
        form = _form(call)
        width = max(call.q.shape[3], call.v.shape[3])
        working = call.accumulation_dtype if call.q.device.type == "cpu" else call.q.dtype
        copied = [x for x in (call.q, call.k, call.v) if x.shape[3] < width or x.dtype != working]
        copies = sum(x.numel() // max(x.shape[3], 1) * width for x in copied) * working.itemsize
        rows = {_Form.KEYS: 1, _Form.PAIRS: call.frame.q_len}.get(form, 0)
        # The bool mask, and the additive one that the kernel makes of it.
        mask = call.mask.batch * call.mask.heads * rows * call.frame.k_len * (1 + working.itemsize)
        return copies + mask

    def run(self, call: Call) -> Result:
        form = _form(call)
        q, k, v = once(call.q, call.k, call.v)
        if q.device.type == "cpu":
            q, k, v = (x.to(call.accumulation_dtype) for x in (q, k, v))
        if form is _Form.ALL or form is _Form.CAUSAL:
            blind = call.frame.q_len - call.frame.k_len if form is _Form.CAUSAL else 0
            out, lse = _kernel(call, q[:, :, blind:], k, v, None, causal=form is _Form.CAUSAL)
            if blind:
                out = F.pad(out, (0, 0, blind, 0))
                lse = None if lse is None else F.pad(lse, (blind, 0), value=-torch.inf)
            return Result(out.to(call.q.dtype), lse, {})
        allowed = _allowed(call, call.frame.everywhere())
        sees = allowed.any(-1, keepdim=True)
        seen = _by_kv_head(allowed.any(-2), call)[..., None]
        q, k, v = torch.where(sees, q, 0), torch.where(seen, k, 0), torch.where(seen, v, 0)
        out, lse = _kernel(call, q, k, v, allowed | ~sees)
        out = torch.where(sees, out, 0).to(call.q.dtype)
        return Result(out, None if lse is None else torch.where(sees[..., 0], lse, -torch.inf), {})


def _form(call: Call) -> _Form:
    mask, frame = call.mask, call.frame
    if isinstance(mask, Everything):
        return _Form.ALL
    if isinstance(mask, Causal) and frame.by_default and frame.k_len:
        if frame.q_len == 1:
            return _Form.ALL
        if frame.q_len >= frame.k_len:
            return _Form.CAUSAL
    # A mask that does not look at the query answers a few rows with one.
    rows, cols = slice(0, min(frame.q_len, 2)), slice(0, min(frame.k_len, 2))
    return _Form.KEYS if _allowed(call, frame.tile(rows, cols)).shape[2] == 1 else _Form.PAIRS


def _allowed(call: Call, at: Coordinates) -> Tensor:
    """The mask at ``at``, 4-D, with every key and otherwise as small as it broadcasts."""
    allowed = call.mask.allowed(at)
    allowed = allowed.reshape((1,) * (4 - allowed.ndim) + tuple(allowed.shape))
    return allowed.expand(-1, -1, -1, at.shape[3])


def _by_kv_head(seen: Tensor, call: Call) -> Tensor:
    """``(B or 1, H or 1, Lk)``: which keys a query head sees, to which keys any head of the group sees."""
    if call.group == 1 or seen.shape[1] == 1:
        return seen
    return seen.reshape(seen.shape[0], call.k.shape[1], call.group, seen.shape[2]).any(2)


def _kernel(
    call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The fused kernel on operands that keep it fused: one width, unit stride, at least one key a row."""
    value_width = v.shape[3]
    width = max(q.shape[3], value_width, 1)
    if q.is_cuda:
        width = -(-width // 8) * 8
        if mask is not None and call.group > 1:
            # On CUDA a mask beside grouped heads leaves the fused kernels.
            k, v = (x.repeat_interleave(call.group, 1) for x in (k, v))
    scale = call.scale
    if scale <= 0:
        # The causal kernel scales after it has hidden: -inf would become NaN, or +inf.
        q, scale = q * scale, 1.0
    q, k, v = (_widened(x, width) for x in (q, k, v))
    if call.wants_lse:
        out, lse = _with_lse(call, q, k, v, mask, scale, causal=causal)
        return out[..., :value_width], lse
    grouped = q.shape[1] != k.shape[1]
    # The call has been cast already; autocast would cast again.
    with without_autocast(q.device):
        out = _fused(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)
    return out[..., :value_width], None


def _widened(x: Tensor, width: int) -> Tensor:
    if x.shape[3] < width:
        return F.pad(x, (0, width - x.shape[3]))
    return x if x.stride(3) == 1 else x.contiguous()


def _with_lse(
    call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Output and natural-log lse of torch's CPU kernel, which wants equal heads and an additive mask."""
    if 0 in (*q.shape[:3], *k.shape[1:3]):
        lse = q.new_full(q.shape[:3], -torch.inf, dtype=call.accumulation_dtype)
        return torch.zeros_like(q), lse
    k, v = (x.repeat_interleave(call.group, 1) for x in (k, v))
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill_(~mask, -torch.inf)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, attn_mask=bias, scale=scale
    )
    return out, lse

"""torch's FlexAttention, given the same mask and score changes: fused kernels on CUDA for what no fixed kernel knows.

A mask's definition becomes FlexAttention's ``mask_mod``, the score changes its ``score_mod``, and the mask's block map
its `BlockMask`, in closed form wherever the mask has one, so that no ``Lq x Lk`` tensor is made to plan the work. On a
CPU it runs uncompiled and forward only, which holds every score: good for checking, not for work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard._autocast import without_autocast
from regard._call import Call
from regard._coordinates import Frame
from regard._derivatives import once
from regard.backends.base import Backend, Capabilities, Result
from regard.backends.tile import visible_only
from regard.masks import Coverage, Everything, Mask
from regard.scores import ScoreModification

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_BLOCK = (128, 128)
_LEAST_WIDTH = 16
"""The kernels multiply tiles of at least this many features."""


class Flex(Backend):
    """torch FlexAttention from the same mask and score changes."""

    name = "flex"
    summary = "torch FlexAttention from the same masks and score changes: compiled on CUDA, for checking on a CPU"
    capabilities = Capabilities(devices=("cpu", "cuda"), dropout=False, gradients=("cuda",), stats=())

    def unsupported(self, call: Call) -> list[str]:
        reasons = super().unsupported(call)
        if 0 in (*call.q.shape, *call.k.shape, *call.v.shape):
            reasons.append("takes no empty tensors")
        if torch.compiler.is_compiling():
            reasons.append("plans its blocks outside of torch.compile")
        return reasons + (refused_on_cuda(call) if call.q.is_cuda else [])

    def discouraged(self, call: Call) -> list[str]:
        return [] if call.q.is_cuda else ["holds all Lq x Lk scores at once on cpu, where it is not compiled"]

    def extra_bytes(self, call: Call) -> int | None:
        if call.q.is_cuda:
            return None
        pairs = call.frame.batch * call.frame.heads * call.frame.q_len * call.frame.k_len
        # Scores before and after their change, and the mask.
        return pairs * (2 * call.accumulation_dtype.itemsize + 1)

    def run(self, call: Call) -> Result:
        q, k, v = visible_only(call, *once(call.q, call.k, call.v))
        if q.device.type == "cpu":
            # FlexAttention looks at requires_grad, not at whether gradients are on.
            q, k, v = (x.detach().to(call.accumulation_dtype) for x in (q, k, v))
        # The call has been cast already; autocast would cast again.
        with without_autocast(q.device):
            out, lse = _flex(call, q, k, v)
        if lse is not None and call.sinks is not None:
            # A sink is one more outcome: what the keys keep is exp(lse) of exp(lse) + exp(sink).
            sink = call.sinks.to(lse.dtype)[:, None]
            out = out * torch.sigmoid(lse - sink)[..., None]
            lse = torch.logaddexp(lse, sink)
        return Result(out.to(call.q.dtype), lse if call.wants_lse else None, {})


def block_mask(mask: Mask, frame: Frame) -> BlockMask:
    """FlexAttention's block mask, from the mask's block map."""
    from torch.nn.attention.flex_attention import BlockMask

    grid = mask.block_map(frame, _BLOCK).grid()
    # In a ragged last block the kernel has to ask which pairs exist, so that it is never FULL.
    for size, block, last in ((frame.q_len, _BLOCK[0], grid[:, :, -1:]), (frame.k_len, _BLOCK[1], grid[..., -1:])):
        if size % block:
            last.clamp_(max=int(Coverage.PARTIAL))

    def ordered(kind: Coverage) -> tuple[Tensor, Tensor]:
        has = (grid == kind).to(torch.int32)
        return has.sum(-1, dtype=torch.int32), has.sort(dim=-1, descending=True, stable=True).indices.to(torch.int32)

    made = BlockMask.from_kv_blocks(
        *ordered(Coverage.PARTIAL),
        *ordered(Coverage.FULL),
        BLOCK_SIZE=_BLOCK,
        mask_mod=mask_mod(mask, frame),
        seq_lengths=(frame.q_len, frame.k_len),
    )
    assert isinstance(made, BlockMask)
    return made


def mask_mod(mask: Mask, frame: Frame) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention's function of batch entry, head, row and column, from a mask's definition."""

    def allowed(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        at = frame.at(b, h, i, j)
        found = mask.allowed(at)
        return found if at.shape else found.reshape(())

    return allowed


def score_mod(mods: Iterable[ScoreModification], frame: Frame) -> Callable[..., Tensor]:
    """FlexAttention's function of a score, batch entry, head, row and column, from score changes in order."""

    def modify(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        at = frame.at(b, h, i, j)
        for mod in mods:
            s = mod.modify(s, at)
        return s

    return modify


@lru_cache(maxsize=16)
def _kept_block_mask(mask: Mask, batch: int, heads: int, q_len: int, k_len: int, device: torch.device) -> BlockMask:
    """`block_mask` for default positions, kept for the layers and steps that use the same mask."""
    return block_mask(mask, Frame(batch, heads, q_len, k_len, device=device))


def _flex(call: Call, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    frame = call.frame
    sizes = (frame.batch, frame.heads, frame.q_len, frame.k_len, frame.device)
    blocks = None
    if not isinstance(call.mask, Everything):
        # A change in place shows in a tensor's version, which inference tensors do not have.
        keep = frame.by_default and not any(t.is_inference() for t in call.mask.tensors())
        blocks = _kept_block_mask(call.mask, *sizes) if keep else block_mask(call.mask, frame)
    arguments: dict[str, Any] = {
        "score_mod": score_mod(call.score_mods, frame) if call.score_mods else None,
        "block_mask": blocks,
        "scale": call.scale,
        "enable_gqa": call.group > 1,
        "return_aux": AuxRequest(lse=True),
    }
    if q.is_cuda:
        out, aux = _compiled()(q, k, v, **arguments)
    else:
        with uncompiled():
            out, aux = flex_attention(q, k, v, **arguments)
    return out, aux.lse


@cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run FlexAttention without compiling anything: the switch that its own warning names, for the time of a call."""
    from torch.nn.attention import flex_attention as module

    before = module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    try:
        yield
    finally:
        module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


def refused_on_cuda(call: Call) -> list[str]:
    """What the compiled kernels do not take, or do not differentiate exactly."""
    reasons = []
    if call.q.dtype == torch.float64:
        reasons.append("has no float64 kernel on cuda")
    narrowest = min(call.q.shape[3], call.v.shape[3])
    if narrowest < _LEAST_WIDTH:
        reasons.append(f"needs at least {_LEAST_WIDTH} features on cuda, and a head has {narrowest}")
    if call.needs_grad and any(t.requires_grad for t in call.score_tensors()):
        reasons.append("gives no gradient to the tensors of a score change")
    if call.needs_grad and not all(mod.bounded_derivative for mod in call.score_mods):
        reasons.append("differentiates a function at hidden pairs too, where its derivative may be infinite")
    return reasons

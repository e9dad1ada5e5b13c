"""How long each value is where it enters the output: ``‖v_j W_O^h‖``, without keeping the values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard.backends.tile import grouped

_NAMES = ("out_proj", "o_proj", "c_proj", "dense", "wo", "o", "out_lin", "proj", "attention_output")


class ValueNorms:
    """Norms of values after the output projection of their head (Kobayashi et al. 2020).

    With ``G_h = W_O^hᵀ W_O^h`` computed once for each module, ``‖v W_O^h‖² = v G_h vᵀ`` costs as little as one more
    projection of the size of a head.
    """

    def __init__(self) -> None:
        self._grams: dict[int, Tensor | None] = {}

    def __call__(self, module: nn.Module, v: Tensor, heads: int) -> Tensor:
        """Float32 ``(B, H, n)`` for values ``v (B, Hkv, n, Dv)``; ``‖v‖`` where no output projection is known."""
        v = v.detach()
        if id(module) not in self._grams:
            self._grams[id(module)] = _gram(module, heads, v.shape[-1], v.device)
        gram = self._grams[id(module)]
        if gram is None:
            plain: Tensor = torch.linalg.vector_norm(v, dim=-1, dtype=torch.float32)
            return plain.repeat_interleave(heads // v.shape[1], 1)
        v = v.to(torch.float32)
        turned = grouped(gram.expand(v.shape[0], -1, -1, -1), v).mT
        squares: Tensor = (turned.unflatten(1, (v.shape[1], -1)) * v[:, :, None]).sum(-1).flatten(1, 2)
        norms = squares.clamp(min=0).sqrt()
        return norms


def _gram(module: nn.Module, heads: int, features: int, device: torch.device) -> Tensor | None:
    """``W_O^hᵀ W_O^h`` of each head ``(H, Dv, Dv)``, float32; None where the module has no such projection."""
    for name in _NAMES:
        layer = getattr(module, name, None)
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            continue
        # Hugging Face's Conv1D keeps its weight as (in, out).
        w = weight.detach().T if type(layer).__name__ == "Conv1D" else weight.detach()
        if w.shape[1] != heads * features:
            continue
        per_head = w.to(device, torch.float32).unflatten(1, (heads, features)).transpose(0, 1)
        gram: Tensor = per_head.mT @ per_head
        return gram
    return None

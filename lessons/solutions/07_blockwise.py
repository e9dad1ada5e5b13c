"""Solutions of lesson 7."""

# %% exercise-1
import math
from collections.abc import Sequence

import torch
from torch import Tensor

import regard as rg


def masked_forward(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Attention of ``q (L, D)`` under ``allowed (L, M)``: out and lse; rows that see nothing give 0 and −∞."""
    m, total = torch.full((len(q), 1), -torch.inf), torch.zeros(len(q), 1)
    out = torch.zeros(len(q), v.shape[-1])
    for keys, values, seen in zip(k.split(block), v.split(block), allowed.split(block, dim=1), strict=True):
        s = (q @ keys.T / math.sqrt(q.shape[-1])).masked_fill(~seen, -torch.inf)
        larger = torch.maximum(m, s.amax(-1, keepdim=True))
        # As long as a row has seen nothing, m and s are −∞, and −∞ − (−∞) is NaN. Any finite number will do instead.
        base = torch.where(larger == -torch.inf, 0.0, larger)
        correction, powers = torch.exp(m - base), torch.exp(s - base)
        total = total * correction + powers.sum(-1, keepdim=True)
        out = out * correction + powers @ values
        m = larger
    return torch.where(total > 0, out / total, 0.0), (m + total.log()).squeeze(-1)


torch.manual_seed(0)
q, k, v = torch.randn(3, 6, 4)
allowed = torch.ones(6, 6).tril(-1).bool()  # strictly before: the first row sees nothing
out, lse = masked_forward(q, k, v, allowed, 2)
print("first row:", out[0], lse[0])
print(f"difference to the library: {(out - rg.attention(q, k, v, mask=rg.Dense(allowed))).abs().max():.1e}")


# %% exercise-2
def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Attention over all keys from ``out (L, Dv)`` and ``lse (L,)`` over disjoint parts of them."""
    lse = torch.logsumexp(torch.stack([one for _, one in parts]), 0)
    return sum(torch.exp(one - lse)[:, None] * out for out, one in parts), lse


parts = [(one.out, one.lse) for one in (rg.inspect(q, k[i : i + 2], v[i : i + 2]) for i in (0, 2, 4))]
at_once, in_groups = merge(parts)[0], merge([merge(parts[1:]), parts[0]])[0]
print(f"to all keys at once: {(at_once - rg.attention(q, k, v)).abs().max():.1e}")
print(f"order and groups   : {(at_once - in_groups).abs().max():.1e}")


# %% exercise-3
def causal_blocks(n: int) -> tuple[int, int]:
    """How many of ``n × n`` square blocks a causal mask leaves, and how many of these need a mask."""
    # Row r of the blocks sees r blocks in full and a part of the one on the diagonal.
    return n * (n + 1) // 2, n


grid = rg.Causal().blocks(640, 640, block=(64, 64)).grid()
print("formula", causal_blocks(10), "counted", (int((grid > 0).sum()), int((grid == 1).sum())))

"""Solutions of lesson 5."""

# %% exercise-1
import torch
from torch import Tensor

import regard as rg


def dropout(x: Tensor, p: float) -> Tensor:
    """``x`` with each number dropped with probability ``p``, the others divided by ``1 - p``."""
    if p >= 1:
        return torch.zeros_like(x)  # what stays would be divided by 0, but nothing stays
    return torch.where(torch.rand_like(x) >= p, x / (1 - p), 0)


torch.manual_seed(0)
print(f"mean of a million ones after dropout: {dropout(torch.ones(1_000_000), 0.3).mean():.4f}")


# %% exercise-2
def variance(w: Tensor, v: Tensor, p: float) -> Tensor:
    """The variance ``(d,)`` that dropout gives the context of weights ``w (L,)`` over values ``v (L, d)``."""
    # One term is 0 or w v / (1 - p): its variance is (w v)² · p (1 - p) / (1 - p)², and the draws are independent.
    return p / (1 - p) * (w[:, None] * v).square().sum(0)


torch.manual_seed(1)
v = torch.randn(16, 3)
for name, w in (("one key ", torch.eye(16)[0]), ("all keys", torch.full((16,), 1 / 16))):
    drawn = torch.stack([dropout(w, 0.2) @ v for _ in range(5000)]).var(0)
    print(name, "formula", variance(w, v, 0.2), "drawn", drawn)


# %% exercise-3
def kept(q: Tensor, k: Tensor, p: float, seed: int) -> Tensor:
    """Which weights a call on ``q (H, L, D)`` and ``k (H, M, D)`` keeps under a seed: bool ``(H, L, M)``."""
    torch.manual_seed(seed)
    unit = torch.eye(k.shape[-2]).expand(*k.shape[:-2], -1, -1)
    return rg.attention(q, k, unit, dropout_p=p) != 0


torch.manual_seed(2)
q, k, v = torch.randn(3, 2, 9, 4)
weights = torch.softmax(q @ k.mT / 2, dim=-1)
by_hand = (weights * kept(q, k, 0.4, seed=5) / (1 - 0.4)) @ v
torch.manual_seed(5)
print(f"difference: {(rg.attention(q, k, v, dropout_p=0.4) - by_hand).abs().max():.1e}")

"""Solutions of lesson 3."""

# %% exercise-1
import math

import torch
from torch import Tensor

import regard as rg


def unit_scale(d: int, a: float, b: float) -> float:
    """The factor that gives dot products of ``d`` features with deviations ``a`` and ``b`` a deviation of 1."""
    # Each product has variance a² b², the sum of d of them d a² b².
    return 1 / (math.sqrt(d) * a * b)


torch.manual_seed(0)
q, k = 3.0 * torch.randn(20_000, 48), 0.2 * torch.randn(20_000, 48)
print(f"standard deviation: {(unit_scale(48, 3.0, 0.2) * (q * k).sum(-1)).std():.3f}")


# %% exercise-2
def growth(*, alike: bool) -> float:
    """The exponent ``p`` of ``|q · k| ~ d^p`` between d = 16 and d = 1,024."""
    torch.manual_seed(0)

    def size(d: int) -> Tensor:
        q, noise = torch.randn(2, 4000, d)
        k = q + 0.5 * noise if alike else noise
        return (q * k).sum(-1).square().mean().sqrt()

    return float((size(1024) / size(16)).log() / math.log(1024 / 16))


print(f"strangers: d^{growth(alike=False):.2f}, alike: d^{growth(alike=True):.2f}")


# %% exercise-3
def scale_for(q: Tensor, k: Tensor, n: float) -> float:
    """The scale at which the queries ``q (L, d)`` look at about ``n`` of the keys ``k (M, d)`` on average."""
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        entropy = rg.inspect(q, k, k, scale=middle).weights.entropy().mean()
        low, high = (middle, high) if entropy > math.log(n) else (low, middle)
    return (low + high) / 2


torch.manual_seed(5)
q, k = torch.randn(100, 32), torch.randn(50, 32)
for n in (40, 10, 2):
    scale = scale_for(q, k, n)
    spread = rg.inspect(q, k, k, scale=scale).weights.entropy().mean().exp()
    print(f"about {n:2} of 50 keys: scale {scale:.4f} = {scale * math.sqrt(32):.2f} / √d, measured {spread:.2f}")

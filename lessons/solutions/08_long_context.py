"""Solutions of lesson 8."""

# %% exercise-1
import math

import torch
from torch import Tensor

import regard as rg


def turns(dim: int, distance: int) -> Tensor:
    """Full turns of each pair ``(dim / 2,)`` over a distance."""
    pairs = torch.arange(dim // 2, dtype=torch.float64)
    return distance * 10000.0 ** (-2 * pairs / dim) / (2 * math.pi)


print("over    32 tokens:", turns(16, 32).float())
print("over 1,024 tokens:", turns(16, 1024).float())
# Pairs that had not been once around meet angles in a long row that training never showed.
print("pairs with less than a turn at 32:", (turns(16, 32) < 1).nonzero().flatten().tolist())


# %% exercise-2
def near_and_first(w: int) -> rg.Mask:
    """The last ``w`` tokens, oneself among them, and the first."""
    return rg.Causal() & (rg.SlidingWindow.of_width(w) | rg.Prefix(1))


torch.manual_seed(0)
layer = rg.nn.MultiHeadAttention(16, 16, 64, 0.0, num_heads=2, mask=near_and_first(6))
tokens, cache = torch.randn(1, 40, 16), rg.cache.SinkCache(1, 6)
with torch.no_grad():
    steps = torch.cat([layer(token, cache=cache) for token in tokens.split(1, dim=1)], dim=1)
    print(f"difference to all at once: {(steps - layer(tokens)).abs().max():.1e}")


# %% exercise-3
def mean_distance(weights: rg.AttentionWeights, rows: int = 128) -> Tensor:
    """The mean over queries of ``Σ w · (q − k)``: ``(B, H)``, some rows at a time."""
    length = weights.shape[-1]
    total = torch.zeros(weights.shape[:2])
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        away = torch.arange(start, stop)[:, None] - torch.arange(length)
        total += (weights[:, :, start:stop, :] * away).sum((-1, -2))
    return total / length


q = torch.randn(1, 2, 500, 8)
near = rg.inspect(q, q, q, mask=rg.Causal(), score_mod=rg.Alibi(torch.tensor([1.0, 0.01]))).weights
print("a steep and a gentle slope of ALiBi look back by", mean_distance(near)[0])

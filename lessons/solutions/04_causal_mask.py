"""Solutions of lesson 4."""

# %% exercise-1
import math

import torch
from six_tokens import X
from torch import Tensor, nn

import regard as rg


def influence(module: nn.Module, x: Tensor) -> Tensor:
    """How strongly token ``j`` of ``x (L, d)`` moves output ``i``: ``(L, L)``."""
    derivative = torch.autograd.functional.jacobian(module, x)  # (L, d_out, L, d_in)
    return derivative.abs().amax((1, 3))


torch.manual_seed(0)
causal = rg.nn.CausalAttention(3, 2, context_length=6, dropout=0.0)
print("of the future on the past, causal:", influence(causal, X).triu(1).max().item())
print(f"of the future on the past, not  : {influence(rg.nn.SelfAttentionV2(3, 2), X).triu(1).max():.4f}")


# %% exercise-2
def window() -> rg.Mask:
    """Itself and the three before."""
    return rg.Causal() & rg.SlidingWindow(3)


def prompt() -> rg.Mask:
    """The first two tokens are seen by all."""
    return rg.Causal() | rg.Prefix(2)


def packed() -> rg.Mask:
    """Two documents of 4 and 5 tokens, each causal."""
    return rg.Causal() & rg.Document.from_lengths([4, 5])


for mask in (window(), prompt(), packed()):
    print(mask.show(9, 9), end="\n\n")


# %% exercise-3
def mended_weights(scores: Tensor) -> Tensor:
    """Softmax twice, but with the future hidden from both: ``(L, L)`` to ``(L, L)``."""
    hidden = torch.ones_like(scores).triu(1).bool()
    first = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)
    return torch.softmax(first.masked_fill(hidden, -torch.inf), dim=-1)


torch.manual_seed(0)
scores = 3 * torch.randn(6, 6)
once = torch.softmax(scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf), dim=-1)
# Causal, but dull: the second softmax sees numbers between 0 and 1, so no weight is more than e times another.
print(f"largest weight of the last row: once {once[-1].max():.3f}, twice {mended_weights(scores)[-1].max():.3f}")
print(f"largest ratio of two weights: {mended_weights(scores)[-1].max() / mended_weights(scores)[-1].min():.3f}")
print(f"e is {math.e:.3f}")

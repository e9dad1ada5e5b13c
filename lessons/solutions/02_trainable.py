"""Solutions of lesson 2."""

# %% exercise-1
import torch
from six_tokens import X
from torch import Tensor, nn

import regard as rg


def key_bias_matters(layer: rg.nn.SelfAttentionV2, x: Tensor) -> float:
    """By how much the output changes under another bias of the keys."""
    kept = layer.W_key.bias.detach().clone()
    with torch.no_grad():
        before = layer(x)
        layer.W_key.bias.copy_(torch.randn_like(kept))
        change = (layer(x) - before).abs().max()
        layer.W_key.bias.copy_(kept)
    return float(change)


torch.manual_seed(0)
layer = rg.nn.SelfAttentionV2(3, 2, qkv_bias=True)
# q · (k + b) = q · k + q · b: the same number is added to every score of a row, and softmax sees only differences.
print(f"change of the output: {key_bias_matters(layer, X):.1e}")
layer(X).square().sum().backward()
print("its gradient:", layer.W_key.bias.grad)


# %% exercise-2
def merged(v1: rg.nn.SelfAttentionV1) -> Tensor:
    """``M (d_in, d_in)`` with ``scores = x M xᵀ``, before the division by √d_out."""
    return (v1.W_query @ v1.W_key.T).detach()


v1 = rg.nn.SelfAttentionV1(3, 2)
print(f"difference: {(X @ merged(v1) @ X.T - (X @ v1.W_query) @ (X @ v1.W_key).T).abs().max():.1e}")
# M has rank d_out at most; as a full matrix it wastes parameters, and keys of d_in numbers would have to be kept.
print("two matrices:", 2 * 768 * 64, " one matrix:", 768 * 768)


# %% exercise-3
def train(*, tied: bool, steps: int = 400) -> float:
    """The mean loss of the last 50 steps of the game, with ``W_query = W_key`` or without."""
    torch.manual_seed(1)
    layer = rg.nn.SelfAttentionV2(12, 4)
    if tied:
        layer.W_query = layer.W_key
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        seeks, gifts = torch.randint(4, (64, 4)), torch.randn(64, 4, 4)
        batch = torch.cat([torch.eye(4).expand(64, 4, 4), torch.eye(4)[seeks], gifts], dim=-1)
        loss = nn.functional.mse_loss(layer(batch), gifts.gather(1, seeks[..., None].expand(-1, -1, 4)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return sum(losses[-50:]) / 50


# A score is then symmetric: A wants B as much as B wants A. But seeking is not mutual.
print(f"two matrices {train(tied=False):.4f}, one {train(tied=True):.4f}")

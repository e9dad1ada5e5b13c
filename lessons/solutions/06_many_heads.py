"""Solutions of lesson 6."""

# %% exercise-1
import torch
from torch import Tensor

import regard as rg


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``(B, L, H·D)`` to ``(B, H, L, D)``."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """``(B, H, L, D)`` to ``(B, L, H·D)``."""
    return x.transpose(1, 2).flatten(2)


x = torch.arange(12).view(1, 3, 4)  # token t has the features 4t to 4t + 3
print("right, head 0:", split_heads(x, 2)[0, 0].tolist())
print("wrong, head 0:", x.view(1, 2, 3, 2)[0, 0].tolist(), "mixes the features of different tokens")


# %% exercise-2
def reorder(module: rg.nn.MultiHeadAttention, order: list[int]) -> rg.nn.MultiHeadAttention:
    """The same function with the heads in another order; without grouping."""
    d_out, d_in = module.W_query.weight.shape
    fresh = rg.nn.MultiHeadAttention(d_in, d_out, module.context_length, 0.0, num_heads=len(order))
    rows = torch.arange(d_out).view(len(order), -1)[order].flatten()
    with torch.no_grad():
        for name in ("W_query", "W_key", "W_value"):
            getattr(fresh, name).weight.copy_(getattr(module, name).weight[rows])
        fresh.out_proj.weight.copy_(module.out_proj.weight[:, rows])  # its inputs moved, its outputs did not
        fresh.out_proj.bias.copy_(module.out_proj.bias)
    return fresh


torch.manual_seed(0)
module, tokens = rg.nn.MultiHeadAttention(12, 12, 8, 0.0, num_heads=3), torch.randn(1, 5, 12)
print(f"difference: {(reorder(module, [2, 0, 1])(tokens) - module(tokens)).abs().max():.1e}")


# %% exercise-3
def expanded(module: rg.nn.MultiHeadAttention) -> rg.nn.MultiHeadAttention:
    """A module with as many key/value heads as query heads that computes the same."""
    d_out, d_in = module.W_query.weight.shape
    full = rg.nn.MultiHeadAttention(d_in, d_out, module.context_length, 0.0, num_heads=module.num_heads)
    group = module.num_heads // module.num_kv_heads
    with torch.no_grad():
        full.W_query.weight.copy_(module.W_query.weight)
        full.out_proj.load_state_dict(module.out_proj.state_dict())
        for name in ("W_key", "W_value"):
            by_head = getattr(module, name).weight.unflatten(0, (module.num_kv_heads, -1))
            getattr(full, name).weight.copy_(by_head.repeat_interleave(group, dim=0).flatten(0, 1))
    return full


grouped = rg.nn.MultiHeadAttention(12, 12, 8, 0.0, num_heads=6, num_kv_heads=2)
print(f"difference: {(expanded(grouped)(tokens) - grouped(tokens)).abs().max():.1e}")

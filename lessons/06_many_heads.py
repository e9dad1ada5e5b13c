"""Lesson 6: many heads."""

# %% [markdown] intro
# # 6. Many heads
#
# One attention gives each token *one* set of weights, and with it one mixture. But a word may need two things at once:
# a verb wants its subject and its object. A single head has to split its weights between the two and gets the average
# of them; which part came from whom is lost. So models run several attentions side by side, each with queries, keys and
# values of its own, and put their results next to each other. Each is a **head**.

# %%
import matplotlib.pyplot as plt
import torch
from drawing import BLUE, ORANGE, heat, plain
from six_tokens import X
from torch import Tensor, nn

import regard as rg

torch.manual_seed(123)
wrapper = rg.nn.MultiHeadAttentionWrapper(3, 2, context_length=6, dropout=0.0, num_heads=2)
print(wrapper(X).shape, "= 6 tokens, 2 heads of 2 features")
print(wrapper(X).detach())

# %% [markdown] one-matrix
# ## The same with one matrix product
#
# The wrapper calls its heads one after the other. But the queries of two heads are two matrix products with the same
# tokens, and two products side by side are one product with a wider matrix. So real implementations compute the queries
# of all heads at once and *then* cut them up. The cut moves no numbers around in thought, only names of dims:
#
#     (L, H·D)  →  view (L, H, D)  →  transpose (H, L, D)
#
# A head is then one entry of a batch, and everything that worked for one head works for a stack of them.

# %%
heads, head_dim = 2, 2
W_query = torch.cat([head.W_query.weight for head in wrapper.heads]).detach()  # (H·D, d_in)
W_key = torch.cat([head.W_key.weight for head in wrapper.heads]).detach()
W_value = torch.cat([head.W_value.weight for head in wrapper.heads]).detach()


def split(x: Tensor) -> Tensor:
    """``(L, H·D)`` to ``(H, L, D)``."""
    return x.view(len(x), heads, head_dim).transpose(0, 1)


q, k, v = split(X @ W_query.T), split(X @ W_key.T), split(X @ W_value.T)
context = rg.attention(q, k, v, mask=rg.Causal())
together = context.transpose(0, 1).reshape(len(X), heads * head_dim)
print("queries", tuple(q.shape), "context", tuple(context.shape), "together", tuple(together.shape))
print(f"difference to the wrapper: {(together - wrapper(X)).abs().max():.1e}")

# %% [markdown] out-proj
# ## The output projection
#
# Next to each other the heads' results know nothing of each other. One last matrix, `out_proj`, mixes them, so that
# what one head found can answer what another found. With it we have the module that every transformer is built from,
# the top of the ladder: `rg.nn.MultiHeadAttention`. Here `d_out` is the width of *all* heads together.

# %%
full = rg.nn.MultiHeadAttention(3, 4, context_length=6, dropout=0.0, num_heads=2)
with torch.no_grad():
    full.W_query.weight.copy_(W_query)
    full.W_key.weight.copy_(W_key)
    full.W_value.weight.copy_(W_value)
    full.out_proj.weight.copy_(torch.eye(4))  # mix nothing, to compare
    full.out_proj.bias.zero_()
print(f"difference to the wrapper: {(full(X) - wrapper(X)).abs().max():.1e}")


def numbers(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


one = numbers(rg.nn.MultiHeadAttention(768, 768, 1024, 0.0, num_heads=1))
twelve = numbers(rg.nn.MultiHeadAttention(768, 768, 1024, 0.0, num_heads=12))
print(f"parameters at width 768: one head {one:,}, twelve heads {twelve:,}")

# %% [markdown] free
# Heads cost no parameters and no multiplications: twelve heads of 64 features do the products of one head of 768. What
# they cost is width: each head compares only 64 features.
#
# ## Two needs, one head or two
#
# The game of lesson 2, made harder: each of four tokens now seeks **two** others, and must hand back both gifts, one
# after the other. First with one head that is as wide as two, then with two heads:

# %%
NAMES = "ABCD"


def draw(games: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens ``(games, 4, 16)``, whom each seeks ``(games, 4, 2)``, and both gifts ``(games, 4, 8)``."""
    seeks = torch.rand(games, 4, 4).argsort(-1)[..., :2]  # two different ones
    gifts = torch.randn(games, 4, 4)
    wanted = gifts[torch.arange(games)[:, None, None], seeks].flatten(2)
    return torch.cat([torch.eye(4).expand(games, 4, 4), torch.eye(4)[seeks].flatten(2), gifts], -1), seeks, wanted


def trained(num_heads: int) -> tuple[rg.nn.MultiHeadAttention, list[float]]:
    """A layer after 500 steps of the game, and its losses."""
    torch.manual_seed(2)
    layer = rg.nn.MultiHeadAttention(16, 8, context_length=4, dropout=0.0, num_heads=num_heads, mask=rg.Everything())
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(500):
        tokens, _, wanted = draw(64)
        loss = nn.functional.mse_loss(layer(tokens), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return layer, losses


one_head, one_losses = trained(1)
two_heads, two_losses = trained(2)
one_loss, two_loss = (sum(losses[-50:]) / 50 for losses in (one_losses, two_losses))
print(f"mean loss of the last 50 steps: one head {one_loss:.4f}, two heads {two_loss:.4f}")

torch.manual_seed(3)
tokens, seeks, _ = draw(1)
rows = [f"{name} seeks {NAMES[a]}, {NAMES[b]}" for name, (a, b) in zip(NAMES, seeks[0].tolist(), strict=True)]
figure, axes = plt.subplots(1, 4, figsize=(13, 2.7), num="Weights of the one head, of each of the two, and the losses")
heat(axes[0], one_head.steps(tokens).weights[0, 0].detach(), rows, list(NAMES), title="the one head", high=1.0)
for head in (0, 1):
    weights = two_heads.steps(tokens).weights[0, head].detach()
    heat(axes[1 + head], weights, [""] * 4, list(NAMES), title=f"head {head} of two", high=1.0)
axes[3].semilogy(one_losses, color=ORANGE, label="one head")
axes[3].semilogy(two_losses, color=BLUE, label="two heads")
axes[3].legend(frameon=False)
axes[3].set(xlabel="step", title="loss")
plain(axes[3])
plt.show()

# %% [markdown] grouped
# The one head looks at both at once and can only return a blend; its loss stays {one_loss / two_loss:,.0f} times that
# of the two, who shared the work between them without being told.
#
# ## Fewer keys than queries
#
# A model that writes keeps the keys and values of everything so far (lesson 8), and that memory is often what limits
# it. **Grouped-query attention** lets several query heads share one head of keys and values: query head `h` reads
# key/value head `h // (H / H_kv)`. With `H_kv = 1` all share one; with `H_kv = H` it is what we had.

# %%
print("heads of keys   numbers kept a token")
for kv_heads in (32, 8, 1):
    print(f"{kv_heads:13}   {2 * kv_heads * 128:20,}")

torch.manual_seed(4)
q, k, v = torch.randn(6, 5, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
repeated = rg.attention(q, k.repeat_interleave(3, dim=0), v.repeat_interleave(3, dim=0))
print(f"sharing is repeating, difference: {(rg.attention(q, k, v) - repeated).abs().max():.1e}")

# %% [markdown] exercises
# ## Exercises

# %% [markdown] exercise-1
# **1. View is not transpose.** `x.view(H, L, D)` also has the right shape, and is a classic mistake. Write
# `split_heads(x, num_heads)` for `(B, L, H·D)` to `(B, H, L, D)` and its inverse `merge_heads(x)`. Which numbers does
# the wrong version give to head 0?

# %% [markdown] exercise-2
# **2. Heads have no order.** Write `reorder(module, order)` that gives a `MultiHeadAttention` with its heads in another
# order and *exactly the same outputs*. Which columns of `out_proj` must move?

# %% [markdown] exercise-3
# **3. Undo the sharing.** Write `expanded(module)`: from a grouped module make one with as many key/value heads as
# query heads and the same outputs. (So every grouped model is a special case of a full one.)

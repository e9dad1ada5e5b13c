"""Lesson 2: trainable queries, keys and values, and what `nn.Linear` computes."""

# %% [markdown] intro
# # 2. Trainable queries, keys and values
#
# In lesson 1 a token's vector did three jobs at once: it asked, it was found, and it was what got mixed. There was
# nothing to train, so it could only ever find what looks like itself. Now each job gets its own view of the token, made
# by its own matrix:
#
# | | made by | the question it answers |
# |---|---|---|
# | **query** | `x @ W_query` | what am I looking for? |
# | **key** | `x @ W_key` | by what can I be found? |
# | **value** | `x @ W_value` | what do I hand over when I am found? |
#
# The matrices hold the numbers that training changes. Everything else stays as it was: dot products, softmax, weighted
# sum.

# %%
import matplotlib.pyplot as plt
import torch
from drawing import BLUE, heat, plain
from six_tokens import X
from torch import Tensor, nn

import regard as rg

torch.manual_seed(123)
d_in, d_out = 3, 2
W_query = torch.rand(d_in, d_out)
W_key = torch.rand(d_in, d_out)
W_value = torch.rand(d_in, d_out)

queries, keys, values = X @ W_query, X @ W_key, X @ W_value
print("the query of journey:", queries[1])
print("the keys:\n", keys)

# %% [markdown] scores
# The scores of *journey* compare its **query** with every **key**. They are divided by √d_out before the softmax
# (lesson 3 shows why), and the weights then mix the **values**.

# %%
scores = keys @ queries[1]
weights = torch.softmax(scores / d_out**0.5, dim=0)
print("scores ", scores)
print("weights", weights)
print("context", weights @ values)

# %% [markdown] v1
# The tokens had three features, the context vector has two: `W_value` decides what is handed over. As a module these
# are five lines; the second rung of the ladder, `rg.nn.SelfAttentionV1`, draws the same matrices from the same seed.


# %%
class SelfAttention(nn.Module):
    """Three matrices; ``(L, d_in)`` to ``(L, d_out)``."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """Every token's context vector."""
        scores = (x @ self.W_query) @ (x @ self.W_key).T
        weights = torch.softmax(scores / self.W_key.shape[1] ** 0.5, dim=-1)
        return weights @ (x @ self.W_value)


torch.manual_seed(123)
ours = SelfAttention(d_in, d_out)
torch.manual_seed(123)
ladder = rg.nn.SelfAttentionV1(d_in, d_out)
print(ladder(X).detach())
print(f"difference: {(ours(X) - ladder(X)).abs().max():.1e}")

# %% [markdown] linear
# ## What `nn.Linear` computes
#
# PyTorch has a module for "multiply by a matrix of parameters": `nn.Linear(d_in, d_out)`. Two things surprise most
# people. It stores its matrix **transposed**, as `(d_out, d_in)`, and computes
#
#     y = x · weightᵀ + bias
#
# so row `n` of `weight` holds the factors of output number `n`. And it does not start from numbers between 0 and 1, but
# from an even draw between −1/√d_in and +1/√d_in, so that a sum of `d_in` products starts out neither large nor tiny.

# %%
torch.manual_seed(0)
linear = nn.Linear(3, 2)
by_hand = torch.stack([sum(w * a for w, a in zip(row, X[1], strict=True)) for row in linear.weight]) + linear.bias
print("weight", tuple(linear.weight.shape), f"within ± {1 / 3**0.5:.4f}")
print("linear(x)          ", linear(X[1]).detach())
print("by hand, row by row", by_hand.detach())

wide = nn.Linear(400, 300)
print(f"largest |weight| of a layer with 400 inputs: {wide.weight.abs().max():.5f} ≤ {1 / 400**0.5:.5f}")

# %% [markdown] v2
# The third rung, `SelfAttentionV2`, has three such layers (without bias, unless you ask). It is the same function: give
# one the transposed matrices of the other and the results agree.

# %%
v2 = rg.nn.SelfAttentionV2(d_in, d_out)
with torch.no_grad():
    v2.W_query.weight.copy_(ladder.W_query.T)
    v2.W_key.weight.copy_(ladder.W_key.T)
    v2.W_value.weight.copy_(ladder.W_value.T)
print(f"V2 with V1's matrices, difference: {(v2(X) - ladder(X)).abs().max():.1e}")

# %% [markdown] task
# ## Train it
#
# Random matrices mean nothing. Let us give them something to learn that needs all three roles. Each token carries a
# **name** (A to D), the name of the token that it **seeks**, and a **gift** of four random numbers. Its output should
# be the gift of the one it seeks. The similarity of lesson 1 cannot do that: three times in four it is another.

# %%
NAMES = "ABCD"


def draw(games: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens ``(games, 4, 12)``, whom each seeks ``(games, 4)``, and the gifts it should get ``(games, 4, 4)``."""
    seeks = torch.randint(4, (games, 4))
    names = torch.eye(4).expand(games, 4, 4)
    gifts = torch.randn(games, 4, 4)
    wanted = gifts.gather(1, seeks[..., None].expand(-1, -1, 4))
    return torch.cat([names, torch.eye(4)[seeks], gifts], dim=-1), seeks, wanted


torch.manual_seed(1)
layer = rg.nn.SelfAttentionV2(12, 4)
x, seeks, wanted = draw(1)
before = layer.steps(x[0]).weights.detach()

optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
losses = []
for _ in range(400):
    batch, _, target = draw(64)
    loss = nn.functional.mse_loss(layer(batch), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())
after = layer.steps(x[0]).weights.detach()
print(f"loss at first {losses[0]:.4f}, in the end {losses[-1]:.4f}")
print("wanted", wanted[0, 0])
print("got   ", layer(x)[0, 0].detach())

# %%
rows = [f"{name} seeks {NAMES[other]}" for name, other in zip(NAMES, seeks[0].tolist(), strict=True)]
figure, axes = plt.subplots(
    1, 3, figsize=(11, 2.8), num="Weights before training, after training, and the loss between"
)
heat(axes[0], before, rows, list(NAMES), title="before", high=1.0)
heat(axes[1], after, [""] * 4, list(NAMES), title="after", high=1.0)
axes[2].plot(losses, color=BLUE)
axes[2].set(yscale="log", xlabel="step", title="loss")
plain(axes[2])
plt.show()

# %% [markdown] task-after
# Every row now points at the one it seeks, with a weight of at least {after.amax(1).min():.3f}. Look at what the
# matrices learned. A score is `x · W_queryᵀ · W_key · xᵀ`, one 12 × 12 matrix that says how much each feature of the
# asker wants each feature of the other. It is large in one place only: where *seeks A* meets *is called A*, and so on.

# %%
wants = (layer.W_query.weight.T @ layer.W_key.weight / 2).detach()  # √d_out = 2
features = [f"is {n}" for n in NAMES] + [f"seeks {n}" for n in NAMES] + [f"gift {n}" for n in range(4)]
figure, ax = plt.subplots(figsize=(5.6, 4.8), num="How much each feature of the asker wants each feature of the other")
heat(ax, wants, features, features, title="row: feature of the asker, column: of the other", digits=-1)
ax.tick_params("x", rotation=90)
plt.show()

matching = wants[4:8, :4]
print("seeks × is called:\n", matching - matching.mean(1, keepdim=True))

# %% [markdown] exercises
# ## Exercises

# %% [markdown] exercise-1
# **1. A useless bias.** `SelfAttentionV2(…, qkv_bias=True)` gives all three layers a bias. Show that the bias of
# `W_key` cannot change the output, whatever it is. (Write out a score with it, and think of what softmax ignores.)
# Write `key_bias_matters(layer, x)` that sets it to random numbers, compares, and restores it.

# %% [markdown] exercise-2
# **2. One matrix instead of two.** Scores only ever use the product of two matrices. Write `merged(v1)` that returns
# the one `(d_in, d_in)` matrix `M` with `scores = x M xᵀ`. Why does nobody build attention that way? Compare the number
# of parameters for `d_in = 768`, `d_out = 64`.

# %% [markdown] exercise-3
# **3. Take away a role.** Train the game above once more with queries and keys from the same matrix (`W_query =
# W_key`). Write `train(tied)` that returns the final loss. How much worse is it, and why?

"""Lesson 3: why attention divides its scores by √d."""

# %% [markdown] intro
# # 3. Why divide by √d
#
# The formula of attention has one factor that looks like an afterthought: `softmax(q kᵀ / √d) v`, with `d` numbers in a
# query and a key. Leave it out, and a small model hardly notices; a wide one starts with next to no gradient. This
# lesson measures why.
#
# ## Dot products grow with the number of features
#
# Take queries and keys of `d` independent random numbers with mean 0 and variance 1, as they roughly are in a fresh
# model. A dot product adds `d` products. Each product has mean 0 and variance 1 · 1 = 1, and variances of independent
# numbers add up. So the sum has variance `d`: a score is typically as large as its standard deviation, **√d**.

# %%
import math

import matplotlib.pyplot as plt
import torch
from drawing import BLUE, ORANGE, plain

import regard as rg

torch.manual_seed(0)
sizes = [1, 4, 16, 64, 256, 1024]
print("    d   std of q·k       √d   std of q·k / √d")
for d in sizes:
    q, k = torch.randn(2, 4000, d)
    scores = (q * k).sum(-1)
    print(f"{d:5}   {scores.std():10.3f}   {math.sqrt(d):6.1f}   {(scores / math.sqrt(d)).std():15.3f}")

# %% [markdown] sharp
# Divided by √d, scores have the same spread whatever `d` is.
#
# ## Large scores make softmax choose one
#
# Softmax sees differences. Where scores differ by 1, the weights differ by a factor of *e* ≈ {math.e:.2f}; where they
# differ by 20, by {math.exp(20):,.0f}. So undivided scores of a wide model give nearly all weight to one key, before
# anything was learned. Here are sixteen random keys and one query, with and without the division:

# %%
torch.manual_seed(1)
figure, axes = plt.subplots(
    2, 4, figsize=(10, 3.6), sharey=True, num="Weights over 16 random keys, with and without √d"
)
largest = {}
for column, d in enumerate([4, 16, 64, 256]):
    q, k = torch.randn(d), torch.randn(16, d)
    for row, (divisor, colour) in enumerate([(1.0, ORANGE), (math.sqrt(d), BLUE)]):
        weights = torch.softmax(k @ q / divisor, dim=0)
        largest[d, row] = weights.max().item()
        axes[row, column].bar(range(16), weights.tolist(), color=colour)
        axes[row, column].set_xticks([])
        plain(axes[row, column])
    axes[0, column].set_title(f"d = {d}", fontsize=11)
axes[0, 0].set_ylabel("undivided")
axes[1, 0].set_ylabel("divided by √d")
plt.show()
for d in (4, 16, 64, 256):
    print(f"d = {d:3}: largest weight undivided {largest[d, 0]:.3f}, divided {largest[d, 1]:.3f}")

# %% [markdown] gradient
# ## One that is sure does not learn
#
# A peaked softmax is not wrong as such; a trained head may well look at one token. The trouble is that it can no longer
# change its mind. The derivative of weight `i` by score `j` is
#
#     ∂w[i] / ∂s[j] = w[i] · (1 − w[i])   for i = j,      −w[i] · w[j]   otherwise
#
# Every entry has a weight that is almost 0, or the rest of one that is almost 1. Where softmax has made its choice, the
# gradient that should correct it is gone. Below, the average size of that derivative over random queries and 64 keys:

# %%
torch.manual_seed(2)


def derivative(d: int, divisor: float) -> torch.Tensor:
    """The mean of |∂w/∂s| over 64 keys for each of 200 random queries of ``d`` features."""
    q, k = torch.randn(200, d), torch.randn(64, d)
    w = torch.softmax(q @ k.T / divisor, dim=-1)
    jacobian = torch.diag_embed(w) - w[:, :, None] * w[:, None, :]
    return jacobian.abs().mean((-1, -2))


undivided = torch.stack([derivative(d, 1.0) for d in sizes])
divided = torch.stack([derivative(d, math.sqrt(d)) for d in sizes])
figure, ax = plt.subplots(figsize=(5.4, 3), num="Mean derivative of the weights by the scores, against d")
ax.loglog(sizes, undivided.mean(1), "o-", color=ORANGE, label="undivided, mean")
ax.loglog(sizes, undivided.median(1).values, "o:", color=ORANGE, label="undivided, median query")
ax.loglog(sizes, divided.mean(1), "o-", color=BLUE, label="divided by √d, mean")
ax.set(xlabel="features d", ylabel="|∂w/∂s|")
ax.legend(frameon=False)
plain(ax)
plt.show()
print(f"mean at d = {sizes[-1]}: undivided {undivided[-1].mean():.1e}, divided {divided[-1].mean():.1e}")
print(f"median query           : undivided {undivided[-1].median():.1e}, divided {divided[-1].median():.1e}")

# %% [markdown] float
# Divided, the derivative is about the same at every width. Undivided, at {sizes[-1]} features it is {divided[-1].mean()
# / undivided[-1].mean():.0f} times smaller on average, and for the median query {divided[-1].median() /
# undivided[-1].median():,.0f} times.
#
# ## Softmax, entropy and a dial
#
# How spread out the weights of a row are has a measure: the **entropy** `−Σ w log w`, in nats. It is 0 where one key
# has all the weight and `log(keys)` where all have the same; `exp(entropy)` reads as "looks at about so many keys".
# With the library you get it for any length without ever holding the weights:

# %%
torch.manual_seed(3)
print("   d   looks at about … of 64 keys: undivided   divided by √d")
for d in (4, 16, 64, 256):
    q, k = torch.randn(1, 1, 200, d), torch.randn(1, 1, 64, d)
    about = [
        rg.inspect(q, k, k, scale=scale).weights.entropy().exp().mean().item() for scale in (1.0, 1 / math.sqrt(d))
    ]
    print(f"{d:4}   {about[0]:38.1f}   {about[1]:13.1f}")

# %% [markdown] scale
# `rg.attention` divides by √D on its own, where `D` counts the features of a *query*, not of a value. `scale=` replaces
# the factor, and a model that was trained with another must be run with it.

# %%
torch.manual_seed(4)
q, k, v = torch.randn(2, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 3)
by_formula = torch.softmax(q @ k.mT / math.sqrt(8), dim=-1) @ v
print(f"difference to the formula: {(rg.attention(q, k, v) - by_formula).abs().max():.1e}")
print(f"the same with scale=1/√8 : {(rg.attention(q, k, v, scale=8**-0.5) - by_formula).abs().max():.1e}")

# %% [markdown] exercises
# ## Exercises

# %% [markdown] exercise-1
# **1. Other spreads.** The features of queries have standard deviation `a`, those of keys `b`. By what must scores be
# multiplied so that their standard deviation is 1? Write `unit_scale(d, a, b)` and check it.

# %% [markdown] exercise-2
# **2. When √d is not enough.** The argument assumed that queries and keys know nothing of each other. In a trained
# model a query points *towards* its key. Measure how the dot product of a vector with itself, plus a little noise,
# grows with `d`: as √d, or faster? Write `growth(alike)` that returns the exponent, fitted between d = 16 and d =
# 1,024. (Some models answer with 1/d, others normalise queries and keys: `qk_norm=` in `rg.nn.MultiHeadAttention`.)

# %% [markdown] exercise-3
# **3. Turn the dial.** Given `q (L, d)` and `k (M, d)`, find the scale at which a query looks at about `n` keys on
# average, that is at which the mean entropy is `log(n)`. Write `scale_for(q, k, n)`. (Entropy falls as the scale grows:
# halve an interval until it is small.)

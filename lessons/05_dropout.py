"""Lesson 5: dropout on attention weights."""

# %% [markdown] intro
# # 5. Dropout
#
# While a model trains, dropout throws some numbers away at random, new ones at every step, so that nothing in the model
# can rely on any single one of them. In attention it falls on the **weights**: now and then a token loses sight of a
# word that it leans on, and has to do with the others. Nothing is thrown away when the model is used.
#
# Two details decide whether it is done right: what is done with the numbers that stay, and when it is switched off.

# %%
import matplotlib.pyplot as plt
import torch
from drawing import BLUE, ORANGE, heat, plain
from six_tokens import WORDS, X
from torch import nn

import regard as rg

torch.manual_seed(123)
print(nn.Dropout(0.5)(torch.ones(6, 6)))

# %% [markdown] scale
# ## What stays is made larger
#
# About half of the ones above are gone, and those that stayed became 2. With a probability `p` to be dropped, what
# stays is divided by `1 − p`. So the *expected* value of every number is what it was:
#
#     p · 0  +  (1 − p) · w / (1 − p)  =  w
#
# Without it, a model would see larger sums when it is used than it ever saw in training. On the causal weights of our
# six tokens:

# %%
torch.manual_seed(123)
layer = rg.nn.CausalAttention(3, 2, context_length=6, dropout=0.5)
weights = layer.steps(X).weights.detach()
torch.manual_seed(0)
dropped = nn.functional.dropout(weights, p=0.5)

figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.4), num="Causal weights before and after dropout of one half")
heat(axes[0], weights, WORDS, WORDS, title="weights", high=1.0)
heat(axes[1], dropped, WORDS, WORDS, title="the same after dropout, p = 0.5", high=1.0)
plt.show()
print("the rows now sum to", dropped.sum(-1))

# %% [markdown] rows
# The rows no longer sum to 1, and a whole row may be gone: then the token gets a context vector of zeros for this one
# step. Only the average over many draws is right again. Let us draw often:

# %%
torch.manual_seed(0)
draws = torch.stack([nn.functional.dropout(weights, p=0.5) for _ in range(2000)])
print("mean of the last row over 2,000 draws:", draws.mean(0)[5])
print("the row without dropout              :", weights[5])

figure, ax = plt.subplots(figsize=(5.4, 2.6), num="How the sum of the last row scatters over 2,000 draws")
ax.hist(draws[:, 5].sum(-1).numpy(), bins=30, color=BLUE)
ax.axvline(1.0, color=ORANGE)
ax.set(xlabel="sum of the last row", ylabel="draws")
plain(ax)
plt.show()
gone = (draws.sum(-1) == 0).float().mean(0)
print("share of draws in which a row lost everything:", gone)

# %% [markdown] rows-after
# A row of `n` weights loses all of them with probability `p` to the power of `n`. The first token sees only itself, so
# in {gone[0]:.0%} of the draws it gets nothing at all. That is one reason why `p` is mostly small, a tenth or so, and
# why many large models train without dropout on the weights.
#
# ## On for training, off for use
#
# `module.train()` and `module.eval()` are the switch, and forgetting `eval()` is the classic mistake: the model then
# answers the same question differently every time.

# %%
layer.train()
print("training:", layer(X)[5].detach(), layer(X)[5].detach())
layer.eval()
print("in use  :", layer(X)[5].detach(), layer(X)[5].detach())

tokens = 100_000
table = 32 * tokens**2

# %% [markdown] kernel
# ## Dropout without a table of what was dropped
#
# The backward pass must drop exactly the weights that the forward pass dropped. The simple way remembers a table as
# large as the weights themselves, which is what fast kernels exist to avoid: for 32 heads and {tokens:,} tokens it
# would take {table / 2**30:,.0f} GiB, at one byte each.
#
# So this library computes the decision again whenever it is needed. Whether weight `(b, h, i, j)` stays follows from a
# hash of these four numbers and one seed; the seed comes from `torch.manual_seed`. The order of computing does not
# matter, nor the number of threads, so *every backend drops the same weights*.
#
# Which ones? Take the unit matrix as values: `weights · 1 = weights`, so the output is what is left of the weights.

# %%
q, k = torch.randn(2, 1, 1, 12, 8)
unit = torch.eye(12)[None, None]
left = {}
for backend in ("reference", "blockwise"):
    torch.manual_seed(7)
    left[backend] = rg.attention(q, k, unit, mask=rg.Causal(), dropout_p=0.3, backend=backend)[0, 0]
print("the same weights dropped:", torch.equal(left["reference"] == 0, left["blockwise"] == 0))
print(f"largest difference of the others: {(left['reference'] - left['blockwise']).abs().max():.1e}")

names = [str(n) for n in range(12)]
figure, ax = plt.subplots(figsize=(4.6, 3.8), num="What dropout left of twelve tokens' causal weights")
heat(ax, left["blockwise"], names, names, title="what is left of the weights, p = 0.3", digits=-1)
plt.show()

# %% [markdown] inspect
# When you look inside, you see the weights **before** dropout: they are what the model believes, dropout is noise put
# on top. So rows of `rg.inspect(…).weights` always sum to 1. (`nn.MultiheadAttention` hands out the weights *after*
# dropout, and its rows do not.)

# %%
torch.manual_seed(7)
seen = rg.inspect(q, k, unit, mask=rg.Causal(), dropout_p=0.3)
print("rows of the weights:", seen.weights.dense().sum(-1).flatten()[:4])
print("rows of the output :", seen.out.sum(-1).flatten()[:4])

# %% [markdown] exercises
# ## Exercises

# %% [markdown] exercise-1
# **1. Your own dropout.** Write `dropout(x, p)` with nothing but `torch.rand`. For `p = 0` it must return `x` itself,
# for `p = 1` zeros, never NaN. Check its mean on a large tensor.

# %% [markdown] exercise-2
# **2. How noisy?** A context vector is `Σ w[j] v[j]`, and each weight is kept or dropped on its own. Show that dropout
# gives each feature the variance `p / (1 − p) · Σ w[j]² v[j]²`, and check it by drawing. Who suffers more, a token that
# looks at one key, or one that looks at many alike? Write `variance(w, v, p)`.

# %% [markdown] exercise-3
# **3. The same draw twice.** With the trick of the unit matrix, write `kept(q, k, p, seed)`: which weights does a call
# with that seed keep? Then use it to compute attention with dropout by hand, and compare with `rg.attention`.

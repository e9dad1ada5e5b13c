"""Lesson 1: dot products and weighted sums on six tokens. Run it, or read its page in the documentation."""

# %% [markdown] intro
# # 1. Dot products and weighted sums
#
# Attention answers one question for every word of a text: *which other words matter to me, and how much?* Then it mixes
# them in exactly that proportion. This lesson does it by hand, on six words with three numbers each. No weights are
# trained and nothing is hidden: a dot product, a softmax, a weighted sum.
#
# A model cannot multiply words, so each word (a **token**) becomes a list of numbers, its **vector**. Real models use
# hundreds or thousands of numbers; three are enough to see everything. The six below are those of chapter 3 of S.
# Raschka's *Build a Large Language Model (From Scratch)*, so you can hold this page beside the book.

# %%
import matplotlib.pyplot as plt
import torch
from drawing import BLUE, GREY, heat, plain
from six_tokens import WORDS, X

import regard as rg

figure, ax = plt.subplots(figsize=(4.2, 3), num="The vectors of the six tokens, three numbers each")
heat(ax, X, WORDS, ["x1", "x2", "x3"], title="six tokens, three features")
plt.show()

# %% [markdown] dot
# ## How alike are two tokens?
#
# Multiply two vectors number by number and add up: the **dot product**. It is large where both vectors are large in the
# same places, so it measures how alike they are, and how long. Let *journey* ask; the one who asks is the **query**,
# and its dot products with all tokens are its **scores**.

# %%
query = X[1]
for word, x in zip(WORDS, X, strict=True):
    products = [float(a * b) for a, b in zip(query, x, strict=True)]
    print(f"{word:8}", " + ".join(f"{p:.3f}" for p in products), "=", f"{sum(products):.4f}")

scores = X @ query
print("\nX @ query =", scores)

# %% [markdown] dot-after
# The last line does the same in one go: a matrix times a vector is a column of dot products. *journey* is most alike to
# *{WORDS[scores.argmax()]}* (itself), then to *{WORDS[scores.topk(2).indices[1]]}* with {scores.topk(2).values[1]:.4f},
# and least to *{WORDS[scores.argmin()]}* with {scores.min():.4f}.

# %% [markdown] softmax
# ## From scores to shares
#
# Scores can be anything, negative too. To mix, we need **weights**: positive shares of one whole. **Softmax** makes
# them. Raise *e* to every score, which makes all of them positive and keeps their order, then divide by the sum:
#
#     weight[j] = exp(score[j]) / Σ exp(score[i])
#
# `exp` overflows soon: in float32, `exp(89)` is `{torch.tensor(89.0).exp()}`. But softmax only depends on *differences*
# of scores, so every real implementation subtracts the largest score first. Nothing changes, and the largest power
# becomes exp(0) = 1.

# %%
powers = scores.exp()
weights = powers / powers.sum()
print("weights         ", weights)
print("their sum       ", weights.sum())

shifted = (scores - scores.max()).exp()
print("largest first   ", shifted / shifted.sum())
print("torch.softmax   ", torch.softmax(scores, dim=0))

figure, ax = plt.subplots(figsize=(5, 2.6), num="The attention weights of the token journey over the six tokens")
ax.bar(WORDS, weights.tolist(), color=[BLUE if word == "journey" else GREY for word in WORDS])
ax.set_title("how much journey looks at each token", fontsize=11)
plain(ax)
plt.show()

# %% [markdown] sum
# ## Mix
#
# Take every token's vector times its weight and add up. The **weighted sum** is the **context vector** of *journey*:
# what it knows after looking around. Since the weights are positive and sum to 1, the result always lies *between* the
# vectors that went in; attention without training can only average.

# %%
parts = weights[:, None] * X
for word, weight, part in zip(WORDS, weights, parts, strict=True):
    print(f"{word:8} {weight:.4f} · x =", part)

context = weights @ X
print("\nweights @ X =", context)
print("smallest and largest of the inputs:", X.amin(0), X.amax(0))

# %% [markdown] all
# ## All six at once
#
# Every token asks in its turn. One matrix product gives all 36 scores, a softmax along each row gives all weights, one
# more product gives all context vectors. These three lines are **self-attention**:

# %%
scores = X @ X.T
weights = torch.softmax(scores, dim=-1)
contexts = weights @ X
print(contexts)

figure, ax = plt.subplots(figsize=(5, 3.6), num="All attention weights: a row for each query, a column for each key")
heat(ax, weights, WORDS, WORDS, title="weights: row = who asks, column = who is looked at", digits=3)
plt.show()

# %% [markdown] same
# Rows ask, columns are looked at, and every row sums to 1. The same three lines are the first rung of this library's
# ladder, and its fast kernels compute the same thing; the differences below are rounding.

# %%
module = rg.nn.SimpleSelfAttention()
print(f"the module   : {(module(X) - contexts).abs().max():.1e}")

kernel = rg.attention(X, X, X, scale=1.0)
print(f"the function : {(kernel - contexts).abs().max():.1e}")

# %% [markdown] order
# ## What attention does not know
#
# Shuffle the tokens, and the context vectors are shuffled in the same way, and nothing else changes. A score compares
# *what* two tokens are, never *where* they stand: to this attention a sentence is a bag of words. Lesson 4 lets a token
# look only backwards, and lesson 8 gives it a sense of distance.

# %%
order = torch.tensor([3, 0, 5, 1, 4, 2])
print(f"shuffled before or after: {(module(X[order]) - module(X)[order]).abs().max():.1e}")

# %% [markdown] exercises
# ## Exercises
#
# Try each before you unfold its solution.

# %% [markdown] exercise-1
# **1. Direction only.** A dot product grows with the length of both vectors. Write `direction_weights(x)`: attention
# weights from the *cosine* of the angle between two tokens. Making one token ten times as long must not change them.
# Who does *journey* look at most now, and is it still by as much?

# %% [markdown] exercise-2
# **2. Hot and cold.** Multiply the scores by a number `beta` before the softmax. Write `context_at(x, beta)`. What does
# every context vector become for `beta = 0`, and what for a very large `beta`?

# %% [markdown] exercise-3
# **3. By hand.** Write `attention_by_loops(x)` without any matrix product: three nested loops over plain floats. It
# should agree with the module to the last digits, and shows how much work one matrix product is.

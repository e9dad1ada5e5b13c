"""Lesson 4: the causal mask, and a famous way to get it wrong."""

# %% [markdown] intro
# # 4. The causal mask, and a leak
#
# A language model learns by guessing the next word of real text, at every place of the text at once. That is only an
# exam if the answer is covered: token `i` may look at itself and at what came before, never at what comes after. The
# rule is `k ≤ q`, the position of the key is at most that of the query, and it is called the **causal mask**.
#
# In this library a mask is a value. It prints and draws itself, and True always means *may attend*.

# %%
import math

import matplotlib.pyplot as plt
import torch
from drawing import BLUE, GREY, ORANGE, heat, plain
from six_tokens import WORDS, X
from torch import Tensor, nn

import regard as rg
from regard.testing import assert_causal

print(rg.Causal().show(6, 6))

# %% [markdown] hide
# ## Hide first, then softmax
#
# A hidden key must get the weight 0, and the rest of the row must still sum to 1. The way to do it: put **−∞** in place
# of every hidden score *before* the softmax. `exp(−∞)` is exactly 0, so hidden keys add nothing to the sum either.

# %%
torch.manual_seed(123)
module = rg.nn.SelfAttentionV2(3, 2)
queries, keys, values = (layer(X).detach() for layer in (module.W_query, module.W_key, module.W_value))

scores = queries @ keys.T / math.sqrt(2)
allowed = rg.Causal().dense(6, 6)[0, 0]
weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), dim=-1)
print("rows sum to", weights.sum(-1))

figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.4), num="Scores with the future hidden, and the weights from them")
heat(axes[0], scores.masked_fill(~allowed, torch.nan), WORDS, WORDS, title="scores; empty = hidden (−∞)")
heat(axes[1], weights, WORDS, WORDS, title="weights")
plt.show()

# %% [markdown] renormalise
# There is a second correct way: softmax over everything, set hidden weights to 0, divide each row by what is left of
# it. The sum over the future cancels in that division, so it is the same function. It costs more and loses digits where
# the future had nearly all the weight, which is why nobody does it; but it helps to see what goes wrong below.

# %%
everything = torch.softmax(scores, dim=-1) * allowed
renormalised = everything / everything.sum(-1, keepdim=True)
print(f"difference of the two ways: {(renormalised - weights).abs().max():.1e}")

causal = rg.nn.CausalAttention(3, 2, context_length=6, dropout=0.0)
causal.load_state_dict(module.state_dict())
print(f"difference to the fourth rung, rg.nn.CausalAttention: {(causal(X) - weights @ values).abs().max():.1e}")

# %% [markdown] check
# ## Do not believe a mask, test it
#
# A triangle of zeros in the weights proves little, as you will see. The proof is in the outputs: change the last token,
# and no output but the last may move. `regard.testing.assert_causal` does that for any module of yours.

# %%
changed = X.clone()
changed[-1] = torch.tensor([9.0, -9.0, 9.0])
print("outputs moved by", (causal(changed) - causal(X)).abs().amax(-1).detach())
assert_causal(causal, X[None])
print("assert_causal found nothing")

# %% [markdown] leak
# ## The leak
#
# A well-read tutorial builds its causal attention like this: softmax, then the mask, then softmax *again* (shortened;
# its further slips are in `examples/tutorial_leak.py`). The weights of the future are 0. Every row sums to 1. The
# module trains. And it leaks:


# %%
class LeakyAttention(nn.Module):
    """Softmax, mask, softmax. Do not use."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=False)
        self.W_key = nn.Linear(d_in, d_out, bias=False)
        self.W_value = nn.Linear(d_in, d_out, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """``(…, L, L)``; 0 in the future, rows sum to 1."""
        queries, keys = self.W_query(x), self.W_key(x)
        first = torch.softmax(queries @ keys.mT / math.sqrt(keys.shape[-1]), dim=-1)
        hidden = torch.ones(x.shape[-2], x.shape[-2]).triu(1).bool()
        return torch.softmax(first.masked_fill(hidden, -torch.inf) / math.sqrt(keys.shape[-1]), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, L, d_in)`` to ``(…, L, d_out)``."""
        return self.weights(x) @ self.W_value(x)


leaky = LeakyAttention(3, 2)
leaky.load_state_dict(module.state_dict())
print(leaky.weights(X).detach())
print("outputs moved by", (leaky(changed) - leaky(X)).abs().amax(-1).detach())
try:
    assert_causal(leaky, X[None])
except AssertionError as error:
    print("assert_causal says:", error)

# %% [markdown] why
# The *first* softmax divided every weight by a sum over **all** tokens, hidden ones included. The mask then removed the
# weights of the future, but not their trace in the others: a past weight is small exactly when the future would have
# been interesting. The second softmax cannot undo that, since it does not see a ratio any more: its inputs are now
# plain numbers between 0 and 1. (And as these are so close together, its weights come out nearly flat; look above.)
#
# ## How much can be read from a trace?
#
# A great deal, if a model is trained to. Here is the fairest exam there is: guess the next of a row of **coin flips**.
# Nobody can do better than chance, a loss of log 2 = {math.log(2):.4f}. Two small models, equal but for the attention,
# train on fresh flips:


# %%
class Guesser(nn.Module):
    """Guesses the next coin: embedding and position, one attention, a small network."""

    def __init__(self, attention: nn.Module, length: int, d: int) -> None:
        super().__init__()
        self.coin, self.place = nn.Embedding(2, d), nn.Parameter(torch.randn(length, d))
        self.attention = attention
        self.head = nn.Sequential(nn.Linear(d, 64), nn.GELU(), nn.Linear(64, 2))

    def forward(self, coins: Tensor) -> Tensor:
        """``(B, L)`` coins to the logits of the next ``(B, L, 2)``."""
        return self.head(self.attention(self.coin(coins) + self.place))


LENGTH, WIDTH = 8, 16


def losses(model: Guesser, coins: Tensor) -> Tensor:
    """The loss at each place ``(LENGTH,)``."""
    logits = model(coins[:, :-1]).mT
    return nn.functional.cross_entropy(logits, coins[:, 1:], reduction="none").mean(0)


def trained(attention: nn.Module) -> Guesser:
    """A guesser after 300 steps on fresh coins."""
    model = Guesser(attention, LENGTH, WIDTH)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        loss = losses(model, torch.randint(2, (128, LENGTH + 1))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


torch.manual_seed(0)
honest_model = trained(rg.nn.CausalAttention(WIDTH, WIDTH, context_length=LENGTH, dropout=0.0))
leaky_model = trained(LeakyAttention(WIDTH, WIDTH))
test = torch.randint(2, (4000, LENGTH + 1))
with torch.no_grad():
    honest_loss, leaky_loss = losses(honest_model, test), losses(leaky_model, test)
print("chance", f"{math.log(2):.4f}")
print("honest", honest_loss)
print("leaky ", leaky_loss)

figure, ax = plt.subplots(figsize=(6, 3), num="Loss on coin flips at each place, honest and leaky")
ax.bar([n - 0.2 for n in range(LENGTH)], honest_loss.tolist(), 0.4, color=BLUE, label="causal mask")
ax.bar([n + 0.2 for n in range(LENGTH)], leaky_loss.tolist(), 0.4, color=ORANGE, label="softmax, mask, softmax")
ax.axhline(math.log(2), color=GREY, linestyle="--", label="chance")
ax.set(xlabel="place", ylabel="loss in nats")
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plain(ax)
plt.show()

# %% [markdown] leak-after
# The honest model learns that nothing can be learnt. The leaky one *predicts coin flips*, at one place with a loss of
# only {leaky_loss.min():.3f}: it has learnt to write the hidden coin into the sum and to read it back. Only two places
# stay at chance: the first, which sees one token, so that its weight is 1 whatever happens, and the last, for which
# nothing is hidden. On real text such a model reports a splendid loss, and then has nothing to go by, since when it
# generates there is no future to read from. That is why such a bug can live long: every number that one looks at gets
# better.
#
# The rule to keep: **hide before the only softmax**, and test with changed tokens.

# %% [markdown] exercises
# ## Exercises

# %% [markdown] exercise-1
# **1. A detector of your own.** The derivative of output `i` by input `j` must be 0 for every `j > i`. Write
# `influence(module, x)` that returns the `(L, L)` matrix of how strongly token `j` moves output `i` (the largest
# absolute derivative), and apply it to both modules above. (`torch.autograd.functional.jacobian` helps.)

# %% [markdown] exercise-2
# **2. Other shapes of the past.** Draw, as masks: (a) each token sees itself and the three before it; (b) the first two
# tokens are seen by all, as in a prompt, and the rest is causal; (c) two documents, tokens 0 to 3 and 4 to 8, packed
# into one row and kept apart. Masks combine with `&` and `|`. Write `window()`, `prompt()` and `packed()`.

# %% [markdown] exercise-3
# **3. Mend it in one line.** Change the leaky weights as little as possible so that they are causal, *keeping* both
# softmaxes. Write `mended_weights(scores)`. Is it a good attention? Compare the largest weight of the last row.

"""Lesson 8: positions, caches and long context, looked at in the viewer."""

# %% [markdown] intro
# # 8. Positions, caches and long context
#
# Attention compares what tokens are, not where they stand (lesson 1). This lesson gives it a sense of distance, writes
# token by token without computing anything twice, and then goes where texts are long: a model is run far beyond the
# length that it was trained at, fails, and the weights tell why.
#
# ## Distance as an angle
#
# **Rotary positions** (J. Su and others, 2021) turn each pair of features of a query and a key like the hand of a
# clock: by an angle that grows with the position, faster for some pairs than for others. A dot product of two turned
# vectors depends on the *difference* of their angles only. So a score knows how far apart two tokens are, and nothing
# else of where they stand:

# %%
import matplotlib.pyplot as plt
import torch
from drawing import BLUE, GREY, ORANGE, plain
from torch import Tensor, nn

import regard as rg

torch.manual_seed(0)
rope = rg.nn.RotaryEmbedding(16)
q, k = torch.randn(2, 1, 1, 16)


def score(q_position: int, k_position: int) -> float:
    """The dot product of the same query and key, standing elsewhere."""
    turned_q, _ = rope(q, q, torch.tensor([q_position]))
    _, turned_k = rope(k, k, torch.tensor([k_position]))
    return float((turned_q * turned_k).sum())


for places in ((3, 1), (103, 101), (4003, 4001), (3, 2)):
    print(f"query at {places[0]:4}, key at {places[1]:4}: {score(*places):.4f}")

# %% [markdown] cache
# ## Writing with a cache
#
# A model that writes adds one token at a time. Keys and values of earlier tokens never change, since the causal mask
# keeps the future out of them; so they are kept, and each step computes one new query. Here the same layer runs over 64
# tokens at once, and again step by step with a cache:

# %%
torch.manual_seed(1)
layer = rg.nn.MultiHeadAttention(32, 32, context_length=64, dropout=0.0, num_heads=2, rope=rope)
tokens = torch.randn(1, 64, 32)
cache = rg.cache.FullCache()
with torch.no_grad():
    steps = torch.cat([layer(token, cache=cache) for token in tokens.split(1, dim=1)], dim=1)
    print(f"difference to all at once: {(steps - layer(tokens)).abs().max():.1e}")
print("scores computed without a cache:", sum(n * n for n in range(1, 65)), " with one:", sum(range(1, 65)))

# %% [markdown] window
# A layer that sees a window only need not keep more than the window. A `RollingCache` forgets what is out of sight, and
# keeps the true position of what it has; a mask that would need a forgotten key is refused instead of answered wrongly.

# %%
near = rg.Causal() & rg.SlidingWindow(7)
rolling = rg.cache.RollingCache(7)
with torch.no_grad():
    steps = torch.cat([layer(token, cache=rolling, mask=near) for token in tokens.split(1, dim=1)], dim=1)
    print(f"difference to all at once: {(steps - layer(tokens, mask=near)).abs().max():.1e}")

# %% [markdown] train
# ## Beyond the trained length
#
# A small model learns to answer at every place: which symbol stood **one** place before, and which **five** before? It
# has two heads and rotary positions, and sees rows of 32 symbols:


# %%
class Copier(nn.Module):
    """Symbols ``(B, L)`` to the logits of the symbols one and five places before ``(B, L, 2, 12)``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 32)
        self.attention = rg.nn.MultiHeadAttention(32, 32, 4096, 0.0, num_heads=2, rope=rg.nn.RotaryEmbedding(16))
        self.head = nn.Linear(32, 24)
        self.mask: rg.Mask | None = None

    def forward(self, symbols: Tensor) -> Tensor:
        """The answers at every place."""
        return self.head(self.attention(self.embed(symbols), mask=self.mask)).unflatten(-1, (2, 12))


def exam(model: Copier, symbols: Tensor) -> tuple[Tensor, float]:
    """The loss, and the share of right answers."""
    answers = model(symbols)[:, 5:]
    wanted = torch.stack([symbols[:, 4:-1], symbols[:, :-5]], -1)
    loss = nn.functional.cross_entropy(answers.flatten(0, 2), wanted.flatten())
    return loss, (answers.argmax(-1) == wanted).float().mean().item()


torch.manual_seed(0)
model = Copier()
optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(250):
    loss, _ = exam(model, torch.randint(12, (32, 32)))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

lengths = [32, 64, 128, 256, 1024]
right = {}
with torch.no_grad():
    for length in lengths:
        right[length] = exam(model, torch.randint(12, (8, length)))[1]
        print(f"rows of {length:4} symbols: {right[length]:.1%} right")

# %% [markdown] look
# At the trained length it is right in {right[32]:.1%} of the places, in rows of {lengths[-1]:,} only in
# {right[1024]:.1%}. The answers are as near as ever; what goes wrong? Do not guess, look. `rg.record` keeps queries and
# keys while the model runs, and the weights at every distance follow from them:

# %%
symbols = torch.randint(12, (1, 1024))
with rg.record(model) as rec, torch.no_grad():
    model(symbols)
weights = rec.layers[0].weights
print(weights)

distances = range(200)
by_distance = torch.stack([weights.diagonal(d)[0].sum(-1) / (1024 - d) for d in distances], -1)
figure, ax = plt.subplots(figsize=(6.4, 3), num="The mean weight at each distance, for both heads, in a row of 1,024")
for head, colour in ((0, BLUE), (1, ORANGE)):
    ax.semilogy(distances, by_distance[head].tolist(), color=colour, label=f"head {head}")
ax.axvline(31, color=GREY, linestyle="--", label="longest distance in training")
ax.set(xlabel="distance to the key", ylabel="mean weight")
ax.legend(frameon=False)
plain(ax)
plt.show()
within = torch.stack([weights.diagonal(d)[0].sum(-1) for d in range(32)]).sum(0) / 1024
print("share of the weight within 31 places:", within)

# %% [markdown] viewer
# Each head has its peak where it should be. But the clocks go round: distances that training never saw get scores too,
# some of them just as high, and there are many of them. Softmax shares the weight out among all.
#
# Below is the whole map, in the viewer: `rec.save_html(…)` writes one page that needs no server and no network. Move
# the pointer over it, zoom in until the cells are single pairs, choose the other head. The page holds queries and keys,
# and computes what you look at.

# %%
with rg.record(model) as rec, torch.no_grad():
    model(symbols[:, :256])
rec.save_html("copier.html", tokens=[f" {symbol}" for symbol in symbols[0, :256].tolist()])

# %% [markdown] mend
# What one sees, one can mend: nothing farther than 31 was ever learned, so do not show it. The mask may be given when
# the model is used, without training anything again:

# %%
model.mask = rg.SlidingWindow(31)
with torch.no_grad():
    for length in lengths:
        right[length] = exam(model, torch.randint(12, (8, length)))[1]
        print(f"rows of {length:4} symbols: {right[length]:.1%} right")

# %% [markdown] needle
# With a window, it is right in {right[1024]:.1%} of the places in rows of {lengths[-1]:,}. (Windows are one answer;
# other models slow the clocks down, `scaling=` of `rg.nn.RotaryEmbedding`.)
#
# ## A needle in a long text
#
# How long may a row be to be looked into? The matrix of weights of a row of 16,384 tokens has 16,384 × 16,384 numbers
# for one head. The library never makes it. Below a key somewhere in a long row is made like the last query, and then
# found:

# %%
torch.manual_seed(5)
length, place = 16_384, 9_731
q, k = torch.randn(2, 1, 1, length, 32)
k[0, 0, place] = 2 * q[0, 0, -1]
seen = rg.inspect(q, k, k, mask=rg.Causal())
row = rg.inspect(q[:, :, -1:], k, k, mask=rg.Causal()).weights  # the last query alone
top = row.topk(1)
print(f"the last token looks most at {top.indices.item():,} with a weight of {top.values.item():.3f}")
print(f"kept: {(q.nbytes + k.nbytes + seen.lse.nbytes) / 2**20:.1f} MiB; the matrix: {4 * length**2 / 2**20:,.0f} MiB")
print("around it:", seen.weights[0, 0, -1, place - 2 : place + 3].detach())

# %% [markdown] exercises
# ## Exercises

# %% [markdown] exercise-1
# **1. Clocks.** The fastest pair of a rotary embedding turns by one radian a token, the slowest of 16 features much
# more slowly. Write `turns(dim, distance)`: how many full turns each pair makes over a distance. Which pairs had not
# completed a turn at the trained length of 32?

# %% [markdown] exercise-2
# **2. Attention sinks.** A rolling cache forgets the first token, which many models lean on. Write `near_and_first(w)`,
# a mask of the last `w` tokens, oneself among them, and the first. Show with `rg.cache.SinkCache` that steps equal all
# at once.

# %% [markdown] exercise-3
# **3. How far does a head look?** From `weights` alone, and without the dense matrix, write `mean_distance(weights)`
# for `(B, H, L, L)` causal self-attention: the mean over queries of `Σ w · (q − k)`, by head.

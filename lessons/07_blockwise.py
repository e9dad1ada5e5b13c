"""Lesson 7: from the dense formula to the blockwise kernel."""

# %% [markdown] intro
# # 7. From the formula to the kernel
#
# Everything so far computed the whole matrix of scores, `L × L` numbers a head. That is fine for six tokens. The matrix
# grows with the *square* of the length, while what we want in the end, the context vectors, grows with the length only:

# %%
import math

import matplotlib.pyplot as plt
import torch
from drawing import BLUE, ORANGE, plain
from torch import Tensor

import regard as rg

print("  tokens     scores of one head   output of one head (64 features, float32)")
for length in (1_000, 10_000, 100_000, 1_000_000):
    print(f"{length:8,}   {4 * length**2 / 2**20:12,.0f} MiB   {4 * length * 64 / 2**20:12,.1f} MiB")

# %% [markdown] idea
# The scores are needed only for a moment: one row of them makes one context vector. So compute a *block* of scores, use
# it, throw it away. Only one thing stands in the way. Softmax divides by a sum over the **whole** row, and subtracts
# the largest score of the **whole** row, and neither is known before the last block. This lesson takes that obstacle
# away in three steps, adds a fourth for training, and so ends with a forward and a backward pass as the library's own
# kernels do them.
#
# ## Step 1: a sum that can change its mind
#
# Let us sum `exp(s)` over a row whose scores arrive in pieces, with the largest subtracted for safety. Keep the largest
# *so far*, `m`, and the sum *as seen from there*, `l = Σ exp(s − m)`. When a piece brings a larger score `m'`,
# everything summed so far was measured from the wrong place. But it is wrong by one common factor:
#
#     Σ exp(s − m')  =  exp(m − m') · Σ exp(s − m)
#
# So multiply the sum by `exp(m − m')` and go on. That is all of **online softmax** (M. Milakov and N. Gimelshein,
# 2018).

# %%
torch.manual_seed(3)
scores = 30 * torch.randn(12)
m, total = -math.inf, 0.0
for piece in scores.split(4):
    larger = max(m, piece.max().item())
    total = total * math.exp(m - larger) + (piece - larger).exp().sum().item()
    print(f"largest so far {m:8.3f} → {larger:8.3f}   the old sum is multiplied by {math.exp(m - larger):.2e}")
    m = larger
print(f"m + log(sum) = {m + math.log(total):.5f}   torch.logsumexp = {torch.logsumexp(scores, 0):.5f}")

# %% [markdown] lse
# The result is kept as one number, the **logsumexp** of the row, `lse = m + log l`. It is the key to all that follows:
# whoever has it can compute any weight of the row on its own, `w = exp(s − lse)`, without looking at the others.
#
# ## Step 2: the output along with it
#
# The same correction works for the weighted sum of values, as it too is a sum of terms `exp(s − m) · v`. So carry three
# things for each query: the largest score `m`, the sum `l`, and the unfinished output `o`. Divide once, at the end.


# %%
def forward(q: Tensor, k: Tensor, v: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Attention of ``q (L, D)`` over ``k (M, D)`` and ``v (M, Dv)``, a block of keys at a time: out and lse."""
    m = torch.full((len(q), 1), -torch.inf)
    l = torch.zeros(len(q), 1)  # noqa: E741, its name in the literature
    o = torch.zeros(len(q), v.shape[-1])
    for keys, values in zip(k.split(block), v.split(block), strict=True):
        s = q @ keys.T / math.sqrt(q.shape[-1])
        larger = torch.maximum(m, s.amax(-1, keepdim=True))
        correction, powers = torch.exp(m - larger), torch.exp(s - larger)
        l = l * correction + powers.sum(-1, keepdim=True)  # noqa: E741
        o = o * correction + powers @ values
        m = larger
    return o / l, (m + l.log()).squeeze(-1)


torch.manual_seed(1)
q, k, v = torch.randn(50, 16), torch.randn(200, 16), torch.randn(200, 8)
dense = torch.softmax(q @ k.T / 4, dim=-1) @ v
for block in (1, 7, 64, 200):
    out, lse = forward(q, k, v, block)
    print(f"blocks of {block:3} keys: difference to the dense formula {(out - dense).abs().max():.1e}")

seen = rg.inspect(q, k, v, backend="blockwise")
print(f"difference to the library: out {(seen.out - out).abs().max():.1e}, lse {(seen.lse - lse).abs().max():.1e}")

# %% [markdown] merge
# The steps may also be taken apart: attention over two sets of keys can be computed separately, on two machines if you
# like, and merged afterwards from `out` and `lse` alone. The set with the larger logsumexp gets the larger share:

# %%
left, right = rg.inspect(q, k[:120], v[:120]), rg.inspect(q, k[120:], v[120:])
share = torch.exp(left.lse - torch.logaddexp(left.lse, right.lse))[:, None]
print(f"by hand : {(share * left.out + (1 - share) * right.out - dense).abs().max():.1e}")
merged, _ = rg.merge([(left.out, left.lse), (right.out, right.lse)])
print(f"rg.merge: {(merged - dense).abs().max():.1e}")

# %% [markdown] mask
# ## Step 3: do not compute what is hidden
#
# With blocks there is something to win that the dense formula cannot: a block in which the mask hides *every* pair need
# not be computed at all, and one in which it hides *none* needs no mask. A mask of this library knows its blocks
# without looking at pairs. For a window of 256 over 2,048 tokens:

# %%
mask = rg.Causal() & rg.SlidingWindow(255)
blocks = mask.blocks(2048, 2048, block=(64, 64))
print(blocks)

figure, axes = plt.subplots(
    1, 2, figsize=(8, 4), layout="constrained", num="Blocks of a causal mask and of a window: full, partial, empty"
)
rg.Causal().plot(2048, 2048, ax=axes[0])
mask.plot(2048, 2048, ax=axes[1])
axes[0].set_title("Causal()", fontsize=11)
axes[1].set_title("Causal() & SlidingWindow(255)", fontsize=11)
plt.show()

# %% [markdown] plan
# How much of the work is left? The library tells before it computes anything, and says which of its backends would do
# it:

# %%
q1, k1, v1 = torch.randn(3, 1, 4, 2048, 64)
plan = rg.explain(q1, k1, v1, mask=mask, backend="blockwise")
print(plan)

lengths = [512, 1024, 2048, 4096, 8192, 16384]
visited = {
    name: [int(m.blocks(n, n, block=(64, 64)).grid().count_nonzero()) for n in lengths]
    for name, m in (("all", rg.Everything()), ("causal", rg.Causal()), ("window of 256", mask))
}
figure, ax = plt.subplots(figsize=(5.4, 3), num="Blocks to compute against the length, for three masks")
for (name, counts), colour in zip(visited.items(), ("grey", ORANGE, BLUE), strict=True):
    ax.loglog(lengths, counts, "o-", color=colour, label=name)
ax.set(xlabel="tokens", ylabel="blocks of 64 × 64")
ax.legend(frameon=False)
plain(ax)
plt.show()
print(
    f"at {lengths[-1]:,} tokens the window needs {visited['window of 256'][-1] / visited['all'][-1]:.1%} of the blocks"
)

# %% [markdown] backward
# ## Step 4: the backward pass remembers nothing
#
# To train, we need the derivatives by `q`, `k` and `v`. The textbook keeps the matrix of weights from the forward pass.
# But from `lse` every weight can be computed again, block by block: `w = exp(s − lse)`. With `dO` for the derivative by
# the output, and for each row the number `δ = Σ dO · O`, the rules are
#
#     dV = wᵀ dO        ds = w · (dO vᵀ − δ)        dQ = ds k / √d        dK = dsᵀ q / √d
#
# The clever part is `δ`: softmax's derivative contains a sum over the whole row, which once more no block knows. But
# that sum is `Σ w · (dO · v) = dO · Σ w v = dO · O`, and the output is known (T. Dao and others, *FlashAttention*,
# 2022).


# %%
def backward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, d_out: Tensor, block: int) -> list[Tensor]:
    """The derivatives by q, k and v, a block of keys at a time, from ``out`` and ``lse`` of the forward pass."""
    scale = 1 / math.sqrt(q.shape[-1])
    delta = (d_out * out).sum(-1, keepdim=True)
    d_q, d_k, d_v = torch.zeros_like(q), [], []
    for keys, values in zip(k.split(block), v.split(block), strict=True):
        w = torch.exp(scale * q @ keys.T - lse[:, None])
        d_s = w * (d_out @ values.T - delta)
        d_q += scale * d_s @ keys
        d_k.append(scale * d_s.T @ q)
        d_v.append(w.T @ d_out)
    return [d_q, torch.cat(d_k), torch.cat(d_v)]


leaves = [x.clone().requires_grad_() for x in (q, k, v)]
d_out = torch.randn_like(dense)
(torch.softmax(leaves[0] @ leaves[1].T / 4, dim=-1) @ leaves[2]).backward(d_out)
out, lse = forward(q, k, v, 64)
for name, ours, leaf in zip("qkv", backward(q, k, v, out, lse, d_out, 64), leaves, strict=True):
    print(f"derivative by {name}: difference to autograd {(ours - leaf.grad).abs().max():.1e}")

# %% [markdown] end
# That is a complete attention kernel: memory that grows with the length, nothing hidden is computed, and the same
# numbers up to rounding. The library's `blockwise` backend is this with masks, score changes, dropout and grouped
# heads; its `native` backend is the same once more in C++. `backend="reference"` stays the dense formula, to check them
# all.

# %% [markdown] exercises
# ## Exercises

# %% [markdown] exercise-1
# **1. A row that sees nothing.** Give `forward` a mask `(L, M)` of what each query may see. What do you get for a row
# that may see nothing, and why? Write `masked_forward(q, k, v, allowed, block)` that gives such a row 0 and a logsumexp
# of −∞, never NaN.

# %% [markdown] exercise-2
# **2. Merge many.** Write `merge(parts)` for any number of `(out, lse)`. Does it matter in which order, or in which
# groups, they are merged?

# %% [markdown] exercise-3
# **3. How many blocks?** For a causal mask over `n` blocks each way, how many have to be computed, and how many of
# these need a mask? Write `causal_blocks(n)` from a formula, and check it against `rg.Causal().blocks(…)`.

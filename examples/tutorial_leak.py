"""A causal mask that leaks: five mistakes of a well-read attention tutorial, each shown, measured and mended.

The tutorial's code for causal attention reads, shortened:

    class CausalAttention(nn.Module):
        def foward(self, x):                                             # 5. misspelt: never called
            q, k, v = self.W_query(x), self.W_key(x), self.W_value(x)
            scores = q @ k.T
            weights = torch.softmax(scores / k.shape()[-1] ** 0.5, -1)   # 4. a shape is no function
            hidden = torch.triu(torch.ones(6, 6), 1).bool()              # 3. six tokens, no more
            weights = weights.masked_fill(hidden, -torch.inf)
            weights = torch.softmax(weights / k.shape()[-1] ** 0.5, -1)  # 1. a second softmax  2. a second √d
            return weights @ v

Mistakes 3 to 5 announce themselves with an error. The first two do not: the module trains, its weights are 0 in the
future and every row sums to 1. But the *first* softmax already divided every weight by a sum over all tokens, hidden
ones included, so the past depends on the future. A language model trained so has seen a trace of the word it should
predict.

Run it: ``python examples/tutorial_leak.py``.
"""

import math

import torch
from torch import Tensor, nn

import regard as rg
from regard.testing import assert_causal

SIX_TOKENS = torch.tensor(
    [
        [0.43, 0.15, 0.89],  # Your
        [0.55, 0.87, 0.66],  # journey
        [0.57, 0.85, 0.64],  # starts
        [0.22, 0.58, 0.33],  # with
        [0.77, 0.25, 0.10],  # one
        [0.05, 0.80, 0.55],  # step
    ]
)


class LeakyAttention(nn.Module):
    """The tutorial's causal attention with mistakes 4 and 5 mended, so that it runs."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=False)
        self.W_key = nn.Linear(d_in, d_out, bias=False)
        self.W_value = nn.Linear(d_in, d_out, bias=False)

    def weights(self, x: Tensor) -> Tensor:
        """``(…, 6, 6)``: softmax, mask, softmax."""
        q, k = self.W_query(x), self.W_key(x)
        first = torch.softmax(q @ k.mT / math.sqrt(k.shape[-1]), -1)
        hidden = torch.triu(torch.ones(6, 6), 1).bool()
        return torch.softmax(first.masked_fill(hidden, -torch.inf) / math.sqrt(k.shape[-1]), -1)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, 6, d_in)`` to ``(…, 6, d_out)``."""
        mixed: Tensor = self.weights(x) @ self.W_value(x)
        return mixed


class CalledShape(nn.Module):
    """Mistake 4 alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Calls a `torch.Size`."""
        scaled: Tensor = x / math.sqrt(x.shape()[-1])  # type: ignore[operator]
        return scaled


class Misspelt(nn.Module):
    """Mistake 5 alone."""

    def foward(self, x: Tensor) -> Tensor:
        """Never called by ``module(x)``."""
        return x


def leaky_module() -> LeakyAttention:
    """A leaky module from seed 123, its queries and keys four times as long, as they may grow in training."""
    torch.manual_seed(123)
    module = LeakyAttention(3, 2)
    with torch.no_grad():
        module.W_query.weight.mul_(4)
        module.W_key.weight.mul_(4)
    return module


def same_weights(leaky: LeakyAttention) -> rg.nn.CausalAttention:
    """The mended module with the parameters of the leaky one; their names are the same."""
    d_out, d_in = leaky.W_query.weight.shape
    mended = rg.nn.CausalAttention(d_in, d_out, context_length=1024, dropout=0.0)
    mended.load_state_dict(leaky.state_dict())
    return mended


def leak(module: nn.Module, x: Tensor) -> Tensor:
    """How far each token's output moves when the last token of ``x (L, d)`` is replaced by another: ``(L,)``.

    Causal attention moves only the last.
    """
    changed = x.clone()
    changed[-1] = 10 * (1 - x[-1])
    with torch.no_grad():
        moved: Tensor = (module(changed) - module(x)).abs().amax(-1)
    return moved


def error_of(module: nn.Module, x: Tensor) -> str:
    """The first line of what ``module(x)`` raises; empty if it runs."""
    try:
        module(x)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def verdict(module: nn.Module, x: Tensor) -> str:
    """What `regard.testing.assert_causal`, made for such mistakes, says of a module."""
    try:
        assert_causal(module, x[None])
    except AssertionError as error:
        return str(error)
    return "causal"


def main() -> None:
    """Print every mistake, what it does, and what happens without it."""
    leaky = leaky_module()
    mended = same_weights(leaky)

    def show(who: str, numbers: Tensor) -> None:
        print(f"   {who:<9}", "  ".join(f"{v:.4f}" for v in numbers.tolist()))

    print("1. Softmax, mask, softmax. Replace the last token: how far does each output move?")
    show("tutorial:", leak(leaky, SIX_TOKENS))
    show("mended:", leak(mended, SIX_TOKENS))
    print("   The first row sees one token only, so its weight is 1 whatever happens. All others but the last leak.")
    print("   regard.testing.assert_causal says of")
    print("   tutorial:", verdict(leaky, SIX_TOKENS))
    print("   mended:  ", verdict(mended, SIX_TOKENS))

    print("\n2. Both softmaxes divide by √d, and a softmax of numbers between 0 and 1 is nearly flat. The last row:")
    show("tutorial:", leaky.weights(SIX_TOKENS)[5])
    show("mended:", mended.steps(SIX_TOKENS).weights[5])
    print(f"   An even mixture would be 1/6 = {1 / 6:.4f} everywhere.")

    seven = torch.cat([SIX_TOKENS, SIX_TOKENS[:1]])
    print("\n3. The mask is 6 x 6. Seven tokens:")
    print("   tutorial:", error_of(leaky, seven))
    print("   mended:   output", tuple(mended(seven).shape))

    print("\n4. k.shape() calls a tuple:")
    print("   tutorial:", error_of(CalledShape(), SIX_TOKENS))
    print("   mended:   k.shape[-1]")

    print("\n5. A misspelt forward is a method that nobody calls:")
    print("   tutorial:", error_of(Misspelt(), SIX_TOKENS))
    print("   mended:   def forward(self, x)")


if __name__ == "__main__":
    main()

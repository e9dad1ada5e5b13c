"""Solutions of lesson 1."""

# %% exercise-1
from math import exp

import torch
from six_tokens import WORDS, X
from torch import Tensor


def direction_weights(x: Tensor) -> Tensor:
    """Weights ``(L, L)`` from the cosine between tokens ``x (L, d)``."""
    unit = x / x.norm(dim=-1, keepdim=True)
    return torch.softmax(unit @ unit.T, dim=-1)


longer = X.clone()
longer[4] *= 10
print("same with one token ten times as long:", torch.allclose(direction_weights(longer), direction_weights(X)))
for word, weight in zip(WORDS, direction_weights(X)[1], strict=True):
    print(f"{word:8} {weight:.4f}")


# %% exercise-2
def context_at(x: Tensor, beta: float) -> Tensor:
    """Context vectors ``(L, d)`` with the scores multiplied by ``beta``."""
    return torch.softmax(beta * (x @ x.T), dim=-1) @ x


print("beta = 0: the mean of all tokens, for every query")
print(context_at(X, 0.0)[:2], X.mean(0))
print("beta = 1000: a copy of the token with the largest score, here not always oneself")
print([WORDS[int((X - context).norm(dim=-1).argmin())] for context in context_at(X, 1000.0)])


# %% exercise-3
def attention_by_loops(x: Tensor) -> Tensor:
    """Context vectors ``(L, d)``, one float at a time."""
    tokens = x.tolist()
    contexts = []
    for query in tokens:
        scores = []
        for key in tokens:
            score = 0.0
            for a, b in zip(query, key, strict=True):
                score += a * b
            scores.append(score)
        largest = max(scores)
        powers = [exp(score - largest) for score in scores]
        context = [0.0] * len(query)
        for power, value in zip(powers, tokens, strict=True):
            for n, feature in enumerate(value):
                context[n] += power / sum(powers) * feature
        contexts.append(context)
    return torch.tensor(contexts)


print(f"largest difference: {(attention_by_loops(X) - torch.softmax(X @ X.T, -1) @ X).abs().max():.1e}")

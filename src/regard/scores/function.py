"""A score change given as a function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regard._coordinates import Coordinates, Frame
from regard._errors import KindError, ShapeError, describe
from regard.scores.base import ScoreModification


class ScoreMod(nn.Module, ScoreModification):
    """``s' = fn(s, b, h, q, k)``: any function that works score by score.

    ``s`` holds scores in the accumulation dtype; flattened batch index ``b``, query head ``h`` and absolute positions
    ``q`` and ``k`` are int64 tensors that broadcast with it. Tensors that the function uses and that require a
    gradient get one, whether it is a module or a closure.

    Raises:
        KindError: no callable, or a function that returns no float tensor.
        ShapeError: a function whose result has another shape than its scores.
    """

    def __init__(self, fn: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(fn):
            raise KindError(f"ScoreMod takes a function fn(s, b, h, q, k) -> scores: got {describe(fn)}.")
        self.fn = fn

    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        out = self.fn(s, at.b, at.h, at.q, at.k)
        if not isinstance(out, Tensor) or not out.is_floating_point():
            raise KindError(f"ScoreMod's function must return a float tensor of scores: got {describe(out)}.")
        if out.shape != s.shape:
            raise ShapeError(
                f"ScoreMod's function must keep the shape of its scores, {tuple(s.shape)}: got {tuple(out.shape)}."
            )
        return out.to(s.dtype)

    @property
    def bounded_derivative(self) -> bool:
        return False

    def tensors(self, at: Coordinates | None = None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """The leaf tensors that the function's result depends on and that require a gradient."""
        if isinstance(self.fn, nn.Module):
            return tuple(p for p in self.fn.parameters() if p.requires_grad)
        # Ask autograd instead of the closure: whatever the function reaches shows up as a leaf of its graph.
        at = Frame(1, 1, 1, 1).everywhere() if at is None else at
        with torch.enable_grad():
            out = self.fn(torch.zeros((1, 1, 1, 1), dtype=dtype, device=at.q.device), at.b, at.h, at.q, at.k)
        if not isinstance(out, Tensor) or out.grad_fn is None:
            return ()
        leaves: dict[int, Tensor] = {}
        seen, todo = set(), [out.grad_fn]
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if isinstance(leaf, Tensor):
                leaves[id(leaf)] = leaf
            todo += [parent for parent, _ in node.next_functions if parent is not None]
        return tuple(leaves.values())

    def extra_repr(self) -> str:
        return str(getattr(self.fn, "__qualname__", self.fn))

    def __repr__(self) -> str:
        return f"ScoreMod({self.extra_repr()})"

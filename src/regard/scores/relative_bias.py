"""A learned bias by bucket of distance (T5, Raffel et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from regard._coordinates import Coordinates, Frame
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard.scores.base import ScoreModification, Sums, check_device


class RelativeBias(nn.Module, ScoreModification):
    """``s' = s + table[bucket(k - q), h]`` with T5's buckets.

    Half of the buckets (of each direction's, if bidirectional) hold one distance each; the rest grow
    logarithmically up to ``max_distance``, and the last holds everything beyond.

    Args:
        num_heads: query heads.
        buckets: rows of the table.
        max_distance: the distance from which on all share one bucket.
        bidirectional: separate buckets for keys after the query; otherwise those share bucket 0.

    Attributes:
        table: parameter ``(buckets, H)``, zero at first.

    Raises:
        KindError: sizes that are no ints.
        ArgumentError: sizes that leave a direction without buckets.
    """

    def __init__(
        self,
        num_heads: int,
        buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,  # noqa: FBT001  (T5's own argument order)
    ) -> None:
        super().__init__()
        for name, size in (("num_heads", num_heads), ("buckets", buckets), ("max_distance", max_distance)):
            if not isinstance(size, int) or isinstance(size, bool):
                raise KindError(f"RelativeBias's {name} must be an int: got {describe(size)}.")
        exact = (buckets // 2 if bidirectional else buckets) // 2
        if num_heads < 1 or exact < 1 or (bidirectional and buckets % 2) or max_distance <= exact:
            raise ArgumentError(
                "RelativeBias needs num_heads >= 1, an even number of buckets (at least 4 if bidirectional, else 2), "
                f"and max_distance above the {max(exact, 1)} exact buckets: got num_heads={num_heads}, "
                f"buckets={buckets}, max_distance={max_distance}, bidirectional={bidirectional}."
            )
        self.num_heads = num_heads
        self.buckets = buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.table = nn.Parameter(torch.zeros(buckets, num_heads))

    def bucket(self, relative: Tensor) -> Tensor:
        """The bucket of each relative position ``k - q``, int64 of the same shape."""
        count = self.buckets // 2 if self.bidirectional else self.buckets
        if self.bidirectional:
            base = (relative > 0).to(torch.int64) * count
            distance = relative.abs()
        else:
            base = torch.zeros_like(relative)
            distance = (-relative).clamp(min=0)
        exact = count // 2
        # In float32 and in this order, so that the bucket edges fall where published T5 weights expect them.
        ratio = torch.log(distance.clamp(min=1).to(torch.float32) / exact) / math.log(self.max_distance / exact)
        far = exact + (ratio * (count - exact)).to(torch.int64)
        return base + torch.where(distance < exact, distance, far.clamp(max=count - 1))

    def modify(self, s: Tensor, at: Coordinates) -> Tensor:
        return s + self.table.to(s.dtype)[self.bucket(at.k - at.q), at.h]

    def backward(self, s: Tensor, grad: Tensor, at: Coordinates, sums: Sums) -> Tensor:
        if self.table.requires_grad:
            slot = self.bucket(at.k - at.q) * self.num_heads + at.h
            sums(self.table).view(-1).scatter_add_(0, slot.expand(grad.shape).reshape(-1), grad.reshape(-1))
        return grad

    def check(self, frame: Frame) -> None:
        check_device("RelativeBias's table", self.table, frame)
        if self.num_heads != frame.heads:
            raise ShapeError(f"RelativeBias has {self.num_heads} heads, but the call has {frame.heads} query heads.")

    def tensors(self, at: Coordinates | None = None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        return (self.table,)

    def extra_repr(self) -> str:
        both = "" if self.bidirectional else ", bidirectional=False"
        return f"{self.num_heads}, buckets={self.buckets}, max_distance={self.max_distance}{both}"

"""Attention weights of any length, computed where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from regard._autocast import without_autocast
from regard._call import Call
from regard._dispatch import choose
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard.masks import Mask
from regard.weights.index import resolve
from regard.weights.kernels import gathered
from regard.weights.named import Statistic, checked, checked_one, reduction
from regard.weights.not_a_tensor import NotATensor
from regard.weights.part import Selection, finite, part
from regard.weights.reductions import Entropy, Max, MaxLogit, Offset, Received, Segments, Within
from regard.weights.stream import Reduction, stream
from regard.weights.topk import Top, TopK
from regard.weights.versions import Versions
from regard.weights.whole import HeadMean, Whole, is_plain, plain_head_mean

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 64 * 2**20
"""Above this many bytes, a dense tensor of weights has to be asked for explicitly."""


class AttentionWeights(NotATensor):
    """``w = exp(s - lse)`` of one call, ``(…, H, Lq, Lk)``, of which nothing is held but q, k, lse and the mask.

    The softmax probabilities *before* dropout, float32 (float64 for float64 inputs). A row sums to 1, to ``1 - sink
    share`` with sinks, and is 0 everywhere if it sees nothing; a hidden pair has weight 0.

    Parts (``weights[...]``, `dense`) and `entropy` are differentiable, unless the call was made under `torch.no_grad`.
    Every other method streams over the weights once, in memory of the order of its inputs and result, and its result
    carries no gradient.

    Made by `regard.inspect`. Every access raises `StaleError` if q, k, lse or a tensor of the mask, the score changes
    or the sinks was changed in place since the call.

    >>> q, k, v = torch.randn(3, 1, 4, 10, 8).unbind()
    >>> weights = inspect(q, k, v, mask=Causal()).weights
    >>> weights
    <AttentionWeights (1, 4, 10, 10) float32: 1.6 kB if dense, up to 6.4 kFLOP a pass>
    >>> weights[0, 1, 3:5].shape, weights.received().shape
    (torch.Size([2, 10]), torch.Size([1, 4, 10]))
    """

    def __init__(self, call: Call, lse: Tensor, *, backend: str | None = None) -> None:
        """Weights of ``call``, whose logsumexp ``(B, H, Lq)`` is known.

        Args:
            call: supplies everything but the values, which are let go.
            lse: ``(B, H, Lq)`` in the accumulation dtype.
            backend: name of the backend that computes a differentiable entropy; default: the best that can.
        """
        # Weights do not depend on values or dropout: a single zero stands for v, so that its memory can be freed.
        nothing = call.q.new_zeros(()).expand(*call.k.shape[:3], 1)
        self._call = call.with_(v=nothing, dropout_p=0.0, seed=None, stats=(), wants_lse=False)
        self._lse = lse
        self._backend = backend
        # An lse computed without a graph lacks its part of every gradient.
        self._differentiable = call.needs_grad
        self._versions = Versions(self._call, lse)

    @property
    def shape(self) -> torch.Size:
        """``(…, H, Lq, Lk)``, with the leading dims of the operands."""
        q_len, k_len = self._call.q.shape[2], self._call.k.shape[2]
        if self._call.lead is None:
            return torch.Size((q_len, k_len))
        return torch.Size((*self._call.lead, self._call.q.shape[1], q_len, k_len))

    @property
    def ndim(self) -> int:
        """As many dims as the operands had."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """float32, or float64 for float64 inputs."""
        return self._call.accumulation_dtype

    @property
    def device(self) -> torch.device:
        """The device of the operands."""
        return self._call.q.device

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        size = _quantity(self.shape.numel() * self.dtype.itemsize, "B")
        work = _quantity(2 * self.shape.numel() * self._call.q.shape[-1], "FLOP")
        dtype = str(self.dtype).removeprefix("torch.")
        device = "" if self.device.type == "cpu" else f" on {self.device}"
        return f"<AttentionWeights {tuple(self.shape)} {dtype}{device}: {size} if dense, up to {work} a pass>"

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ArgumentError("lazy weights have no memory to share with an array. Leave copy=False out.")
        array: np.ndarray[Any, Any] = self.dense().detach().cpu().numpy()
        return array if dtype is None else array.astype(dtype)

    def __getitem__(self, index: object) -> Tensor:
        """The part ``dense()[index]`` as a tensor, differentiable.

        Ints, slices with any step, ``...``, and one list or 1-D tensor of ints or bools, in the caller's shape.

        Raises:
            ArgumentError: out of range, more than one list or tensor, a part of more than 64 MiB.
            KindError: an index of another kind.
            StaleError: something was changed in place since the call.
        """
        resolved = resolve(index, tuple(self.shape), self.device)
        return self._part(resolved.selection, MAX_BYTES, "Take a smaller part").reshape(resolved.shape)

    def dense(self, max_bytes: int = MAX_BYTES) -> Tensor:
        """All weights as a tensor ``(…, H, Lq, Lk)``, differentiable.

        Raises:
            ArgumentError: more than ``max_bytes``.
            StaleError: something was changed in place since the call.
        """
        repair = "Take a part with weights[b, h, i0:i1, j0:j1]"
        shape = (*self._call.q.shape[:3], self._call.k.shape[2])
        if self._wants_grad:
            whole = Selection(*(slice(0, n) for n in shape))
            return self._part(whole, max_bytes, repair).reshape(self.shape)
        self._check_size(shape, max_bytes, repair)
        return self._streamed(Whole(self._call))

    def head_mean(self, max_bytes: int = MAX_BYTES) -> Tensor:
        """``1/H Σ_h w_hij``, ``(…, Lq, Lk)``, what `torch.nn.MultiheadAttention` gives by default; differentiable.

        Memory of one head's weights; of all of them where a gradient may be wanted and there is a mask or a score
        change.

        Raises:
            ArgumentError: more than ``max_bytes``.
            StaleError: something was changed in place since the call.
        """
        if self._call.lead is None:
            return self.dense(max_bytes)
        plain = is_plain(self._call)
        if self._wants_grad and not plain:
            return self.dense(max_bytes).mean(-3)
        shape = (self._call.q.shape[0], self._call.q.shape[2], self._call.k.shape[2])
        self._check_size(shape, max_bytes, "Take a part with weights[b, h, i0:i1, j0:j1].mean(…)")
        if not plain:
            return self._streamed(HeadMean(self._call)).squeeze(-3)
        self._versions.check()
        with self._no_autocast(), torch.set_grad_enabled(self._wants_grad):
            return self._call.restore(plain_head_mean(self._call, self._lse)).squeeze(-3)

    @property
    def _wants_grad(self) -> bool:
        return self._differentiable and torch.is_grad_enabled()

    def _check_size(self, shape: tuple[int, ...], max_bytes: int, repair: str) -> None:
        size = torch.Size(shape).numel() * self.dtype.itemsize
        if size > max_bytes:
            raise ArgumentError(
                f"weights of shape {shape} take {_quantity(size, 'B')}, and the limit is "
                f"{_quantity(max_bytes, 'B')}. {repair}, a reduction such as .pool(512, 512), .topk(8) or .received(), "
                f"or lift the limit with .dense(max_bytes={self.shape.numel() * self.dtype.itemsize})."
            )

    def _part(self, selection: Selection, max_bytes: int, repair: str) -> Tensor:
        self._check_size(selection.shape, max_bytes, repair)
        self._versions.check()
        with self._no_autocast(), torch.set_grad_enabled(self._wants_grad):
            return part(self._call, self._lse, selection)

    def entropy(self) -> Tensor:
        """``-Σ_j w_ij log w_ij`` in nats with the sink as one more outcome, ``(…, H, Lq)``; differentiable.

        0 for a row that sees nothing. ``exp`` of it is the number of keys that a row effectively reads.

        Raises:
            UnsupportedError: a gradient may be wanted and the backend that was asked for does not compute the entropy.
            StaleError: something was changed in place since the call.
        """
        if not (self._differentiable and self._call.needs_grad):
            return self._streamed(Entropy(self._call))
        self._versions.check()
        call = self._call.with_(stats=("entropy",))
        return call.restore(choose(call, self._backend).run(call).stats["entropy"])

    def max(self) -> Tensor:
        """``max_j w_ij``, ``(…, H, Lq)``: how sure each row is. 0 for a row that sees nothing."""
        return self._streamed(Max(self._call))

    def max_logit(self) -> Tensor:
        """``max_ij s_ij``, ``(…, H)``: the largest visible score of each head (watched by QK-clip, Kimi K2 2025).

        After scale and score changes, the sinks left out; ``-inf`` for a head whose queries see nothing.
        """
        return self._streamed(MaxLogit(self._call))

    def received(self, queries: slice = slice(None)) -> Tensor:
        """``Σ_i w_ij`` over the rows ``queries``, ``(…, H, Lk)``: what each key gets ("heavy hitters", H2O 2023).

        Raises:
            KindError: ``queries`` is no slice.
        """
        if not isinstance(queries, slice):
            raise KindError(f"received takes a slice of rows, such as slice(-64, None): got {describe(queries)}.")
        chosen = range(self._call.q.shape[2])[queries]
        ends = sorted((chosen[0], chosen[-1])) if chosen else (0, -1)
        rows = range(ends[0], ends[1] + 1, abs(chosen.step))
        return self._streamed(Received(self._call, rows), rows=rows)

    def topk(self, k: int) -> Top:
        """The ``k`` largest weights of each row and their columns, each ``(…, H, Lq, k)``, largest first.

        Keys of equal scores come by lower column. A row with fewer than ``k`` visible keys ends with weight 0 and
        index -1; so does every row if there are fewer than ``k`` keys.

        Raises:
            ArgumentError: ``k`` is no positive int.
        """
        top: Top = self._named(checked_one(self._call, ("topk", k)))
        return top

    def diagonal(self, offset: int = 0) -> Tensor:
        """The weight that each query gives to the key ``offset`` positions before it, ``(…, H, Lq)``.

        By position: row ``i`` holds the sum of ``w_ij`` over the keys with ``q_i - k_j = offset``, which is 0 if there
        is none, and more than one weight only if positions repeat. ``diagonal(1)`` is what the previous token gets.
        Costs the work of a window, not of all pairs.

        Raises:
            KindError: ``offset`` is no int.
        """
        if not isinstance(offset, int) or isinstance(offset, bool):
            raise KindError(f"offset is an int, a query's position less its key's: got {describe(offset)}.")
        pairs = Offset(offset)
        return self._streamed(Within(self._call, pairs), within=pairs)

    def segments(self, ids: Tensor | Sequence[int]) -> Tensor:
        """``Σ_{j: ids_j = n} w_ij``, ``(…, H, Lq, N)`` with ``N = max(ids) + 1``: the mass that each segment gets.

        Args:
            ids: the segment of each column, ints ``(Lk,)`` or ``(…, Lk)`` with the leading dims of the operands; a
                negative id is in no segment.

        Raises:
            KindError: ids that are no ints.
            ShapeError: ids of another shape.
        """
        ids = torch.as_tensor(ids, device=self.device)
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise KindError(f"segments takes integer ids, one per key: got {describe(ids)}.")
        k_len, lead = self._call.k.shape[2], self._call.lead or ()
        if tuple(ids.shape) not in ((k_len,), (*lead, k_len)):
            raise ShapeError(
                f"segments takes one id per key, ({k_len},) or {(*lead, k_len)}: got shape {tuple(ids.shape)}."
            )
        return self._streamed(Segments(self._call, ids.to(torch.int64).reshape(-1, k_len)))

    def pool(self, rows: int, cols: int, kind: Literal["mass", "max"] = "mass") -> Tensor:
        """A map of ``rows x cols`` bins, ``(…, H, rows, cols)``; row ``i`` is in bin ``⌊i · rows / Lq⌋``.

        ``kind="mass"``: mean over the queries of a bin, sum over its keys, so that rows of the map sum to 1 (to ``1 -
        sink share`` with sinks) at every resolution. ``kind="max"``: the largest weight of a bin.

        Raises:
            ArgumentError: fewer than 1 bin, more bins than rows or columns, another kind.
        """
        mass: Tensor = self._named(checked_one(self._call, ("pool", rows, cols, kind)))
        return mass

    def stats(self, asked: Sequence[Statistic] = ("entropy", "max", "max_logit", "received")) -> dict[Statistic, Any]:
        """Several statistics in one pass, each under what it was asked for by; no gradients.

        ``"entropy"``, ``"max"``, ``"max_logit"``, ``"received"``, ``("topk", k)``, ``("pool", rows, cols)`` and
        ``("pool", rows, cols, "max")`` give what the methods of these names give.

        Raises:
            ArgumentError: an unknown statistic, or arguments that its method would not take.
        """
        names = checked(self._call, asked)
        made = [reduction(self._call, name) for name in names]
        return dict(zip(names, map(self._found, made, self._pass(made)), strict=True))

    def _named(self, name: Statistic) -> Any:
        return self.stats((name,))[name]

    def _found(self, made: Reduction, value: Tensor) -> Tensor | Top:
        return Top(value, self._call.restore(made.columns)) if isinstance(made, TopK) else value

    def _streamed(self, reduction: Reduction, *, rows: range | None = None, within: Mask | None = None) -> Tensor:
        return self._pass([reduction], rows=rows, within=within)[0]

    def _pass(
        self, reductions: list[Reduction], *, rows: range | None = None, within: Mask | None = None
    ) -> list[Tensor]:
        self._versions.check()
        with self._no_autocast(), torch.no_grad():
            lse = finite(self._lse.detach())
            whole = within is None and (rows is None or rows == range(self._call.q.shape[2]))
            if whole and gathered(self._call, lse, reductions):
                results = [reduction.finish(lse) for reduction in reductions]
            else:
                results = stream(self._call, self._lse, reductions, rows=rows, within=within)
        return [self._call.restore(x) for x in results]

    def _no_autocast(self) -> AbstractContextManager[object]:
        """The operands were cast when attention ran; whoever reads the weights under autocast must not cast again."""
        return without_autocast(self.device)


def _quantity(amount: float, unit: str) -> str:
    """``1_600, "B"`` as ``1.6 kB``."""
    for prefix in ("", "k", "M", "G", "T"):
        if amount < 1000:
            return f"{amount:.3g} {prefix}{unit}"
        amount /= 1000
    return f"{amount:.3g} P{unit}"

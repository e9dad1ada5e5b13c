"""The last rung: all heads in one product, with every mask, score change and head layout of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from regard._call import check_dropout, checked_mask, checked_score_mods
from regard._errors import ArgumentError, KindError, ShapeError, describe
from regard._observe import attend
from regard.cache import Cache
from regard.masks import Causal, Everything, Mask
from regard.masks.base import checked_int
from regard.nn.checks import check_context_length, check_tokens
from regard.nn.fused import FusedProjection, project, save_apart
from regard.nn.prefix import check_cache, join, turn
from regard.nn.rotary import RotaryEmbedding
from regard.nn.score_mods import ScoreMods
from regard.nn.steps import Steps, dense_steps
from regard.scores import ScoreModification
from regard.scores.holder import follow

ScoreModArgument = ScoreModification | Sequence[ScoreModification] | None


class MultiHeadAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) with grouped key/value heads (Ainslie et al. 2023), rotary positions,
    query-key norm, caches and sinks.

    ``out_proj(concat_h(attention(W_query(x)_h, W_key(x)_g, W_value(x)_g)))``, query head ``h`` reading key/value head
    ``g = h // (num_heads // num_kv_heads)``.

    Args:
        d_in: features of a token, and of a token of ``context=``.
        d_out: features of the output.
        context_length: the most tokens of ``x`` together with those before it in the cache; those of ``context=`` are
            not limited.
        dropout: probability of dropping a weight in training; `regard.attention` says which.
        num_heads: query heads.
        qkv_bias: whether ``W_query``, ``W_key`` and ``W_value`` have a bias.
        num_kv_heads: key/value heads, a divisor of ``num_heads``; default: as many. 1 is multi-query attention.
        head_dim: features of a head; default ``d_out // num_heads``.
        mask: which token may attend to which; None for all. It moves with the module's ``.to(device)``.
        score_mod: one score change or several; those with parameters become submodules.
        rope: turns queries and keys by their positions.
        qk_norm: makes the norm of each head's queries, and another of its keys, from ``head_dim``, such as
            ``nn.RMSNorm`` (Henry et al. 2020); they come before ``rope``.
        sinks: whether each head has a learned logit more in its softmax's denominator (gpt-oss, OpenAI 2025).
        out_bias: whether ``out_proj`` has a bias.
        fused: whether ``W_query``, ``W_key`` and ``W_value`` are one parameter and one product. The state dict has
            the same names, so that checkpoints go both ways (it holds copies: writing into it changes no weight). What
            goes by parameter differs: an optimizer's state, and adapters, which attach to ``in_proj``.
        backend: as in `regard.attention`.

    Attributes:
        W_query: linear layer ``d_in → num_heads * head_dim``.
        W_key: linear layer ``d_in → num_kv_heads * head_dim``.
        W_value: likewise.
        in_proj: with ``fused``, all of their rows in this order; the three then only show what is theirs.
        out_proj: linear layer ``num_heads * head_dim → d_out``.
        q_norm: norm of queries, or None; ``k_norm`` likewise.
        sinks: parameter ``(num_heads,)``, zero at first, or None.

    Shape:
        ``(…, L, d_in)`` to ``(…, L, d_out)``, ``L <= context_length``.

    Raises:
        KindError: a size that is no int, a bare tensor as mask, something else than a score change, a `RotaryEmbedding`
            or a maker of norms.
        ArgumentError: a size below 1, a dropout outside [0, 1).
        ShapeError: heads that do not divide, or have fewer features than ``rope`` turns.
    """

    sinks: nn.Parameter | None

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,  # noqa: FBT001  (the book's signature)
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        mask: Mask | None = Causal(),  # noqa: B008  (masks are immutable values)
        score_mod: ScoreModArgument = None,
        rope: RotaryEmbedding | None = None,
        qk_norm: Callable[[int], nn.Module] | None = None,
        sinks: bool = False,
        out_bias: bool = True,
        fused: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_dropout(dropout, "dropout")
        self.d_in = checked_int("d_in", d_in, 1)
        self.d_out = checked_int("d_out", d_out, 1)
        self.context_length = checked_int("context_length", context_length, 1)
        self.dropout = float(dropout)
        self.num_heads = checked_int("num_heads", num_heads, 1)
        self.num_kv_heads = num_heads if num_kv_heads is None else checked_int("num_kv_heads", num_kv_heads, 1)
        if num_heads % self.num_kv_heads:
            raise ShapeError(
                "every key/value head serves the same number of query heads, so num_heads % num_kv_heads must be 0: "
                f"got num_heads={num_heads} and num_kv_heads={num_kv_heads}."
            )
        if head_dim is None and d_out % num_heads:
            raise ShapeError(
                f"d_out is split evenly over the heads, so d_out % num_heads must be 0: got d_out={d_out} and "
                f"num_heads={num_heads}. Change one of them, or choose the size of a head with head_dim=."
            )
        self.head_dim = d_out // num_heads if head_dim is None else checked_int("head_dim", head_dim, 1)
        self.mask = checked_mask(mask)
        mods = checked_score_mods(score_mod)
        self.score_mod = ScoreMods(mods) if isinstance(score_mod, (list, tuple)) else next(iter(mods), None)
        self.backend = backend
        self.rope = _checked_rope(rope, self.head_dim)
        self.q_norm = _made_norm(qk_norm, self.head_dim)
        self.k_norm = _made_norm(qk_norm, self.head_dim)
        self._widths = [heads * self.head_dim for heads in (num_heads, self.num_kv_heads, self.num_kv_heads)]
        if fused:
            self.in_proj = FusedProjection(d_in, self._widths, bias=qkv_bias)
            save_apart(self)
        else:
            self.W_query, self.W_key, self.W_value = (nn.Linear(d_in, n, bias=qkv_bias) for n in self._widths)
        self.out_proj = nn.Linear(num_heads * self.head_dim, d_out, bias=out_bias)
        self.register_parameter("sinks", nn.Parameter(torch.zeros(num_heads)) if sinks else None)

    def forward(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        cache: Cache | None = None,
        mask: Mask | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Output ``(…, L, d_out)`` of the tokens ``x (…, L, d_in)``.

        Args:
            x: the tokens that ask.
            context: the tokens that are asked ``(…, Lk, d_in)``, for cross-attention; default: ``x`` itself. With it a
                constructor's mask of plain ``Causal()`` is not applied, as the tokens of two sequences are not in one
                order; give ``mask=Causal()`` here if they are.
            cache: the keys and values of the tokens before ``x``, one cache a layer; those of ``x`` are appended. One
                pass over a sequence equals any division of it into calls.
            mask: a further mask for this call: a query attends where both this and the constructor's allow it.
            positions: int64 ``(L,)`` or ``(B, L)`` for ``rope`` alone; default: the running index, from the end of the
                cache on. Masks and score changes always go by the running index.

        Raises:
            KindError: no floating-point tensor, a bare tensor as mask.
            ShapeError: fewer than 2 dims, not ``d_in`` features, more than ``context_length`` tokens.
            ArgumentError: ``context`` together with a cache or ``rope``, ``positions`` without ``rope``, a mask that
                needs keys which the cache has dropped.
            UnsupportedError: a cache beside `DynamicNTK` beyond its original length.
        """
        q, k, v = self._project(x, context, cache, positions)
        mask = self._effective_mask(context, mask)
        q_positions, k_positions = None, None
        if cache is not None:
            k, v, q_positions, k_positions = join(cache, k, v, mask, self.num_heads)
        out = attend(
            self,
            q,
            k,
            v,
            mask=mask,
            score_mod=self.score_mods,
            dropout_p=self.dropout if self.training else 0.0,
            sinks=self.sinks,
            q_positions=q_positions,
            k_positions=k_positions,
            backend=self.backend,
        )
        return self._output(out)

    def steps(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        mask: Mask | None = None,
        positions: Tensor | None = None,
    ) -> Steps:
        """Every number between ``x`` and `forward`'s result in eval mode; arguments as there."""
        return dense_steps(
            *self._project(x, context, None, positions),
            self._output,
            mask=self._effective_mask(context, mask),
            score_mod=self.score_mods,
            sinks=self.sinks,
        )

    def _project(
        self, x: Tensor, context: Tensor | None, cache: Cache | None, positions: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``(…, H, L, D)``, keys and values ``(…, Hkv, Lk, D)``."""
        check_tokens("x", x, self.d_in)
        check_cache(cache, context)
        check_context_length(x, self.context_length, 0 if cache is None else cache.length)
        self._check_positions(context, positions)
        if context is None:
            context = x
        else:
            check_tokens("context", context, self.d_in)
        if "in_proj" in self._modules:
            q, k, v = project(self.in_proj, self._widths, x, context)
        else:
            q, k, v = self.W_query(x), self.W_key(context), self.W_value(context)
        q, k, v = self._split(q, self.num_heads), self._split(k, self.num_kv_heads), self._split(v, self.num_kv_heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = _normed(self.q_norm, q), _normed(self.k_norm, k)
        if self.rope is not None:
            q, k = turn(self.rope, q, k, positions, cache)
        return q, k, v

    def _check_positions(self, context: Tensor | None, positions: Tensor | None) -> None:
        if self.rope is not None and context is not None:
            raise ArgumentError(
                "rope turns queries and keys by their places in one sequence, and context= is another. Make the module "
                "for cross-attention without rope."
            )
        if self.rope is None and positions is not None:
            raise ArgumentError(
                "positions= are those of the rotary embedding, and this module has none. Make it with "
                "rope=RotaryEmbedding(...), or leave them out."
            )

    def _split(self, x: Tensor, heads: int) -> Tensor:
        """``(…, L, heads * D)`` to ``(…, heads, L, D)``."""
        return x.reshape(*x.shape[:-1], heads, self.head_dim).transpose(-3, -2)

    def _output(self, out: Tensor) -> Tensor:
        """Concatenate the heads, ``(…, H, L, D)`` to ``(…, L, H * D)``, and mix them."""
        mixed: Tensor = self.out_proj(out.transpose(-3, -2).flatten(-2))
        return mixed

    def _effective_mask(self, context: Tensor | None, mask: Mask | None) -> Mask:
        crossing = context is not None and self.mask == Causal()
        own = Everything() if crossing else self.mask
        return own if mask is None else own & checked_mask(mask)

    @property
    def score_mods(self) -> tuple[ScoreModification, ...]:
        """The score changes in the order in which they are applied."""
        return tuple(self.score_mod) if isinstance(self.score_mod, ScoreMods) else checked_score_mods(self.score_mod)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001  (torch's signature)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.mask = self.mask.map(lambda tensor: follow(tensor, fn(tensor)))
        return self

    def extra_repr(self) -> str:
        parts = [f"num_heads={self.num_heads}"]
        if self.num_kv_heads != self.num_heads:
            parts.append(f"num_kv_heads={self.num_kv_heads}")
        parts += [f"head_dim={self.head_dim}", f"context_length={self.context_length}", f"dropout={self.dropout}"]
        parts.append(f"mask={self.mask!r}")
        if self.score_mod is not None and not isinstance(self.score_mod, nn.Module):
            parts.append(f"score_mod={self.score_mod!r}")
        if self.sinks is not None:
            parts.append("sinks=True")
        return ", ".join(parts)


def _checked_rope(rope: object, head_dim: int) -> RotaryEmbedding | None:
    if rope is None:
        return None
    if not isinstance(rope, RotaryEmbedding):
        raise KindError(f"rope takes a RotaryEmbedding, such as RotaryEmbedding({head_dim}): got {describe(rope)}.")
    if rope.dim > head_dim:
        raise ShapeError(
            f"rope turns the first dim={rope.dim} features of a head, and a head has head_dim={head_dim}. Make it with "
            f"RotaryEmbedding({head_dim}), or fewer."
        )
    return rope


def _made_norm(make: object, head_dim: int) -> nn.Module | None:
    if make is None:
        return None
    if not callable(make):
        raise KindError(f"qk_norm makes a norm from head_dim, such as torch.nn.RMSNorm: got {describe(make)}.")
    norm = make(head_dim)
    if not isinstance(norm, nn.Module):
        raise KindError(f"qk_norm={describe(make)} must make a torch.nn.Module: got {describe(norm)}.")
    return norm


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    # Under autocast the projections have its dtype, and the norm's parameters their own.
    dtype = next((p.dtype for p in norm.parameters()), x.dtype)
    normed: Tensor = norm(x.to(dtype))
    return normed.to(x.dtype)

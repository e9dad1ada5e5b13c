"""`torch.nn.MultiheadAttention`, with its call signature and its parameters, computed by regard; and back.

What is converted: in torch's bool masks **True = hide**, so they are inverted; float masks are added to the scores. One
of 0 and ``-inf`` alone hides, and so becomes a mask whose hidden blocks are skipped. ``attn_mask`` of three dims is
``(B * H, L, S)``. Tokens come first unless ``batch_first``. ``is_causal`` is a hint that ``attn_mask`` is the causal
mask, aligned at the top left, and is believed where torch believes it: without weights and without padding.

What differs from torch, on purpose: a query that may attend to nothing gives the output projection of 0 (torch: NaN);
the weights returned are those *before* dropout, so that their rows sum to 1 in training too; dropout drops the weights
that `regard.attention` drops under the same seed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regard._errors import ArgumentError, KindError, ShapeError, describe, got
from regard._observe import attend, look
from regard.adapters._equivalence import assert_equivalent, check_materialised
from regard.masks import Causal, Dense, Everything, Mask, Padding
from regard.scores import Bias, ScoreModification

PARAMETERS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias")
"""The parameters beside those of ``out_proj``; None where a module has none."""


class MultiheadAttention(nn.Module):
    """What `from_torch` makes of a `torch.nn.MultiheadAttention`: its call, its state dict, its very parameters.

    Attributes:
        in_proj_weight: ``(3 * embed_dim, embed_dim)``, or None with ``kdim`` or ``vdim`` of their own.
        q_proj_weight: ``(embed_dim, embed_dim)``, or None where fused.
        k_proj_weight: ``(embed_dim, kdim)``, likewise.
        v_proj_weight: ``(embed_dim, vdim)``, likewise.
        in_proj_bias: ``(3 * embed_dim,)`` or None.
        out_proj: linear layer ``embed_dim → embed_dim``.
        backend: as in `regard.attention`; None at first.
    """

    in_proj_weight: nn.Parameter | None
    q_proj_weight: nn.Parameter | None
    k_proj_weight: nn.Parameter | None
    v_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None
    out_proj: nn.Linear

    _qkv_same_embed_dim = False
    """`torch.nn.TransformerEncoderLayer` reads this, and goes around its attention module where it is true."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        """Share the parameters of ``module``; `from_torch` also compares the results."""
        super().__init__()
        self.embed_dim = module.embed_dim
        self.kdim = module.kdim
        self.vdim = module.vdim
        self.num_heads = module.num_heads
        self.head_dim = module.head_dim
        self.dropout = module.dropout
        self.batch_first = module.batch_first
        self.backend: str | None = None
        share_parameters(module, self)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001  (torch's signature)
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001
        is_causal: bool = False,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor | None]:
        """Output and, if asked for, weights, as `torch.nn.MultiheadAttention` gives them.

        Args:
            query: ``(L, B, E)``, ``(B, L, E)`` with ``batch_first``, or ``(L, E)``.
            key: ``(S, B, kdim)`` and so on.
            value: ``(S, B, vdim)`` and so on.
            key_padding_mask: ``(B, S)`` or ``(S,)``: bool, True = hide, or float, added to the scores.
            need_weights: whether to compute the weights, which are held as a tensor.
            attn_mask: ``(L, S)`` or ``(B * H, L, S)``: bool, True = hide, or float, added to the scores.
            average_attn_weights: weights ``(B, L, S)``, the mean over heads, instead of ``(B, H, L, S)``.
            is_causal: a hint that ``attn_mask``, which must be there, is the causal mask.

        Returns:
            The output, of the query's shape, and the weights before dropout or None.

        Raises:
            ShapeError: ranks or sizes that do not fit.
            ArgumentError: ``is_causal`` without ``attn_mask``.
            KindError: nested tensors, masks that are neither bool nor float.
        """
        self._check(query, key, value, attn_mask, is_causal=is_causal)
        batched = query.ndim == 3
        q, k, v = self._project(query, key, value)
        if not batched:
            q, k, v = q[None], k[None], v[None]
        elif not self.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        q, k, v = (x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        believed = is_causal and not need_weights and key_padding_mask is None and q.shape[2] == k.shape[2]
        mask, bias = self._masks(q, k, key_padding_mask, attn_mask, causal=believed)
        dropout_p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            seen = look(self, q, k, v, mask=mask, score_mod=bias, dropout_p=dropout_p, backend=self.backend)
            read = seen.weights.head_mean if average_attn_weights else seen.weights.dense
            out, weights = seen.out, read(max_bytes=seen.weights.shape.numel() * 8).to(seen.out.dtype)
        else:
            out = attend(self, q, k, v, mask=mask, score_mod=bias, dropout_p=dropout_p, backend=self.backend)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if not batched:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, *, is_causal: bool) -> None:
        operands = {"query": query, "key": key, "value": value}
        if any(x.is_nested for x in operands.values()):
            raise KindError(
                "regard takes padded tensors with key_padding_mask, not nested ones. torch.nn.TransformerEncoder makes "
                "none with enable_nested_tensor=False, and regard.replace(model) sees to it."
            )
        if {x.ndim for x in operands.values()} not in ({2}, {3}):
            raise ShapeError(f"query, key and value must all have 3 dims, or all 2 for one entry: {got(operands)}.")
        for (name, x), features in zip(operands.items(), (self.embed_dim, self.kdim, self.vdim), strict=True):
            if x.shape[-1] != features:
                raise ShapeError(f"{name} must have {features} features, its last dim: {got(operands)}.")
        if is_causal and attn_mask is None:
            raise ArgumentError("is_causal is a hint about attn_mask and needs it, as in torch: got attn_mask None.")

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bias = self.in_proj_bias
        if self.in_proj_weight is not None:
            if query is key and key is value:
                q, k, v = F.linear(query, self.in_proj_weight, bias).chunk(3, -1)
                return q, k, v
            weights = self.in_proj_weight.chunk(3)
        else:
            assert self.q_proj_weight is not None
            assert self.k_proj_weight is not None
            assert self.v_proj_weight is not None
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        return q, k, v

    def _masks(
        self, q: Tensor, k: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None, *, causal: bool
    ) -> tuple[Mask, list[ScoreModification]]:
        batch, heads, q_len, k_len = *q.shape[:3], k.shape[2]
        mask: Mask = Causal() if causal else Everything()
        bias: list[ScoreModification] = []
        if attn_mask is not None and not causal:
            if tuple(attn_mask.shape) not in ((q_len, k_len), (batch * heads, q_len, k_len)):
                raise ShapeError(
                    f"attn_mask must be (L, S) = {(q_len, k_len)} or (B * H, L, S) = {(batch * heads, q_len, k_len)}: "
                    f"got {tuple(attn_mask.shape)}."
                )
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.reshape(batch, heads, q_len, k_len)
            hidden = _hidden("attn_mask", attn_mask)
            if hidden is None:
                bias.append(Bias(attn_mask))
            else:
                mask &= Dense(~hidden)
        if key_padding_mask is not None:
            padding = key_padding_mask if key_padding_mask.ndim == 2 else key_padding_mask[None]
            if tuple(padding.shape) != (batch, k_len):
                raise ShapeError(
                    f"key_padding_mask must be (B, S) = {(batch, k_len)}, or (S,) for one entry: got "
                    f"{tuple(key_padding_mask.shape)}."
                )
            hidden = _hidden("key_padding_mask", padding)
            if hidden is None:
                bias.append(Bias(padding[:, None, None]))
            else:
                mask &= Padding.from_valid(~hidden)
        return mask, bias

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, batch_first={self.batch_first}"


def from_torch(module: nn.MultiheadAttention) -> MultiheadAttention:
    """``module`` computed by regard, sharing its parameters, so that training either trains both.

    Both are run in eval mode on the same random input, with padding and a mask, and compared.

    Raises:
        KindError: another kind of module, a subclass included, as it may compute something else.
        ArgumentError: ``add_bias_kv`` or ``add_zero_attn``, weights without numbers, results that differ.

    >>> theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    >>> x = torch.randn(2, 5, 12)
    >>> out, weights = from_torch(theirs)(x, x, x)
    >>> torch.allclose(out, theirs(x, x, x)[0], atol=1e-6), weights.shape
    (True, torch.Size([2, 5, 5]))
    """
    if type(module) is not nn.MultiheadAttention:
        raise KindError(f"from_torch takes a torch.nn.MultiheadAttention: got a {type(module).__name__}.")
    for option, present in (("add_bias_kv", module.bias_k is not None), ("add_zero_attn", module.add_zero_attn)):
        if present:
            raise ArgumentError(
                f"regard's keys are those of the tokens, so that {option}=True, which adds one, is not converted."
            )
    made = MultiheadAttention(module)
    made.train(module.training)
    _compare(made, module)
    return made


def to_torch(module: MultiheadAttention) -> nn.MultiheadAttention:
    """The `torch.nn.MultiheadAttention` that ``module`` was made of, or its equal, sharing the parameters; compared.

    Raises:
        KindError: a module that `from_torch` did not make.
        ArgumentError: weights without numbers, results that differ.
    """
    if not isinstance(module, MultiheadAttention):
        raise KindError(f"to_torch takes what from_torch made: got a {type(module).__name__}.")
    made = nn.MultiheadAttention(
        module.embed_dim,
        module.num_heads,
        module.dropout,
        bias=module.in_proj_bias is not None,
        kdim=module.kdim,
        vdim=module.vdim,
        batch_first=module.batch_first,
        device="meta",
    )
    share_parameters(module, made)
    made.train(module.training)
    _compare(module, made)
    return made


def share_parameters(source: nn.Module, target: nn.Module) -> None:
    """Give ``target`` the parameters and the output layer of ``source``, either kind of module."""
    for name in PARAMETERS:
        target.register_parameter(name, getattr(source, name))
    target.out_proj = source.out_proj


def _hidden(name: str, mask: Tensor) -> Tensor | None:
    """Where a mask hides, bool; None for a float mask that also adds, or whose numbers cannot be looked at."""
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        raise KindError(f"{name} is bool, True = hide, or float, added to the scores: got {describe(mask)}.")
    if mask.requires_grad or torch.compiler.is_compiling():
        return None
    hidden = mask == -torch.inf
    return hidden if bool((hidden | (mask == 0)).all()) else None


def _compare(ours: MultiheadAttention, theirs: nn.MultiheadAttention) -> None:
    check_materialised("a torch.nn.MultiheadAttention", list(ours.parameters()))
    weight = ours.out_proj.weight
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int, features: int) -> Tensor:
        shape = (2, count, features) if ours.batch_first else (count, 2, features)
        return torch.randn(shape, generator=generator).to(weight)

    operands = tokens(5, ours.embed_dim), tokens(7, ours.kdim), tokens(7, ours.vdim)
    padding = torch.arange(7, device=weight.device) >= torch.tensor([[7], [4]], device=weight.device)
    hide = torch.ones(5, 7, dtype=torch.bool, device=weight.device).triu(3)
    modes = ours.training, theirs.training
    # The flags themselves: train() would reach the modules inside, and calling forward reaches no hooks.
    ours.training = theirs.training = False
    try:
        with torch.no_grad():
            results = [m.forward(*operands, key_padding_mask=padding, attn_mask=hide) for m in (ours, theirs)]
    finally:
        ours.training, theirs.training = modes
    for mine, other in zip(*results, strict=True):
        assert mine is not None
        assert other is not None
        assert_equivalent("regard's and torch's MultiheadAttention", mine, other)

"""Everything that `MultiHeadAttention` offers, against a loop over heads, rows and keys in plain torch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import regard as rg

D_IN, HEADS, WIDTH = 5, 6, 3


def by_hand(
    module: rg.nn.MultiHeadAttention,
    x: Tensor,
    allowed: Tensor,
    context: Tensor | None = None,
    change: Callable[[Tensor, int, Tensor], Tensor] = lambda s, h, distance: s,
) -> Tensor:
    """The formula, one head of one sequence at a time; ``allowed (B, Lq, Lk)``, distance = query - key position."""
    context = x if context is None else context
    outputs = []
    for b in range(x.shape[0]):
        heads = []
        for h in range(module.num_heads):
            g = h // (module.num_heads // module.num_kv_heads)
            own, shared = slice(h * WIDTH, (h + 1) * WIDTH), slice(g * WIDTH, (g + 1) * WIDTH)
            q = module.W_query(x[b])[:, own]
            k = module.W_key(context[b])[:, shared]
            v = module.W_value(context[b])[:, shared]
            distance = torch.arange(len(q))[:, None] + (len(k) - len(q)) - torch.arange(len(k))
            s = change(q @ k.T / math.sqrt(WIDTH), h, distance)
            e = torch.exp(s) * allowed[b]
            total = e.sum(-1, keepdim=True)
            if module.sinks is not None:
                total = total + torch.exp(module.sinks[h])
            heads.append(e / total @ v)
        outputs.append(module.out_proj(torch.cat(heads, -1)))
    return torch.stack(outputs)


def assert_as_by_hand(module: rg.nn.MultiHeadAttention, out: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-11)
    wanted = [*inputs, *module.parameters()]
    cotangent = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(5))
    ours = torch.autograd.grad(out, wanted, cotangent)
    theirs = torch.autograd.grad(expected, wanted, cotangent)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def make(**options: object) -> rg.nn.MultiHeadAttention:
    torch.manual_seed(11)
    module = rg.nn.MultiHeadAttention(D_IN, 4, 13, 0.0, HEADS, head_dim=WIDTH, **options).double()  # type: ignore[arg-type]
    assert isinstance(module, rg.nn.MultiHeadAttention)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(13)), alpha=0.2)
    return module


def draw(length: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, length, D_IN, dtype=torch.float64, generator=generator).requires_grad_()


def causal(length: int) -> Tensor:
    return torch.ones(2, length, length, dtype=torch.bool).tril()


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_grouped_heads(kv_heads: int) -> None:
    module, x = make(num_kv_heads=kv_heads, qkv_bias=True), draw(7)
    assert module.W_key.out_features == kv_heads * WIDTH
    assert_as_by_hand(module, module(x), by_hand(module, x, causal(7)), x)


def test_sinks_take_a_share_of_every_row() -> None:
    module, x = make(sinks=True), draw(7)
    assert module.sinks is not None
    assert module.sinks.shape == (HEADS,)
    assert_as_by_hand(module, module(x), by_hand(module, x, causal(7)), x)


def test_cross_attention_leaves_the_default_mask_out() -> None:
    module, x, context = make(num_kv_heads=2), draw(5), draw(19, seed=2)
    everything = torch.ones(2, 5, 19, dtype=torch.bool)
    assert_as_by_hand(module, module(x, context=context), by_hand(module, x, everything, context), x, context)


def test_cross_attention_keeps_any_other_mask() -> None:
    x, context = draw(5), draw(7, seed=2)
    module = make(mask=rg.Prefix(3))
    allowed = (torch.arange(7) < 3).expand(2, 5, 7)
    assert_as_by_hand(module, module(x, context=context), by_hand(module, x, allowed, context), x, context)


def test_a_causal_mask_given_to_cross_attention_is_applied() -> None:
    module, x, context = make(), draw(5), draw(7, seed=2)
    allowed = torch.ones(2, 5, 7, dtype=torch.bool).tril(2)
    out = module(x, context=context, mask=rg.Causal())
    assert_as_by_hand(module, out, by_hand(module, x, allowed, context), x, context)


def test_a_mask_given_to_forward_is_anded_with_the_constructors() -> None:
    module, x = make(), draw(7)
    lengths = torch.tensor([4, 7])
    allowed = causal(7) & (torch.arange(7) < lengths[:, None, None])
    out = module(x, mask=rg.Padding(lengths))
    assert_as_by_hand(module, out, by_hand(module, x, allowed), x)


def test_without_a_mask_every_token_sees_every_token() -> None:
    module, x = make(mask=None), draw(7)
    assert_as_by_hand(module, module(x), by_hand(module, x, torch.ones(2, 7, 7, dtype=torch.bool)), x)


def test_learned_score_changes_are_submodules_and_get_gradients() -> None:
    bias = rg.RelativeBias(HEADS, buckets=4, max_distance=9, bidirectional=False)
    module, x = make(score_mod=bias), draw(7)
    assert module.score_mod is bias
    assert "score_mod.table" in module.state_dict()

    def change(s: Tensor, h: int, distance: Tensor) -> Tensor:
        return s + bias.table[bias.bucket(-distance), h]

    assert_as_by_hand(module, module(x), by_hand(module, x, causal(7), change=change), x)


def test_several_score_changes_apply_in_order() -> None:
    slopes = torch.nn.Parameter(torch.linspace(0.1, 0.6, HEADS, dtype=torch.float64))
    module, x = make(score_mod=[rg.Softcap(0.7), rg.Alibi(slopes)]), draw(7)
    assert "score_mod.1.slopes" in module.state_dict()

    def change(s: Tensor, h: int, distance: Tensor) -> Tensor:
        return 0.7 * torch.tanh(s / 0.7) - slopes[h] * distance.abs()

    assert_as_by_hand(module, module(x), by_hand(module, x, causal(7), change=change), x)


def test_a_row_that_sees_nothing_gives_the_output_bias() -> None:
    module, x = make(mask=rg.Nothing()), draw(3)
    torch.testing.assert_close(module(x), module.out_proj.bias.expand(2, 3, 4))


def test_its_mask_moves_with_it() -> None:
    module = rg.nn.MultiHeadAttention(D_IN, 6, 7, 0.0, 2, mask=rg.Causal() & rg.Document(torch.tensor([0, 0, 1])))
    assert {t.device.type for t in module.to("meta").mask.tensors()} == {"meta"}


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            (5, 7, 6, 0.0, 2),
            {},
            rg.ShapeError,
            r"must be 0: got d_out=7 and num_heads=2\. .*head_dim=",
        ),
        ((5, 6, 6, 0.0, 6), {"num_kv_heads": 4}, rg.ShapeError, "got num_heads=6 and num_kv_heads=4"),
        ((5, 6, 6, 1.0, 2), {}, rg.ArgumentError, r"dropout must be at least 0 and below 1: got 1\.0"),
        ((5, 6, 6, "0.1", 2), {}, rg.KindError, "dropout must be a number: got '0.1'"),
        ((5, 6, 0, 0.0, 2), {}, rg.ArgumentError, "context_length must be at least 1: got 0"),
        ((5, 6, 6, 0.0, 2.0), {}, rg.KindError, r"num_heads must be an int: got 2\.0"),
        ((5, 6, 6, 0.0, 2), {"head_dim": 0}, rg.ArgumentError, "head_dim must be at least 1: got 0"),
        ((5, 6, 6, 0.0, 2), {"mask": torch.ones(6, 6, dtype=torch.bool)}, rg.KindError, r"Dense\(tensor\), where True"),
        ((5, 6, 6, 0.0, 2), {"score_mod": lambda s: s}, rg.KindError, r"becomes one with ScoreMod\(fn\)"),
    ],
)
def test_bad_arguments(
    arguments: tuple[object, ...], options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rg.nn.MultiHeadAttention(*arguments, **options)  # type: ignore[arg-type]


def test_bad_forward_arguments() -> None:
    module = rg.nn.MultiHeadAttention(5, 6, 6, 0.0, 2)
    with pytest.raises(rg.KindError, match=r"mask= takes a mask, not a tensor"):
        module(torch.zeros(1, 3, 5), mask=torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(rg.ShapeError, match=r"context must be .* d_in = 5.*: got \(1, 3, 4\)"):
        module(torch.zeros(1, 3, 5), context=torch.zeros(1, 3, 4))

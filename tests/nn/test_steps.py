"""What a module shows of itself is what it computes."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import regard as rg


def steps_of(module: nn.Module, x: Tensor) -> rg.nn.Steps:
    steps = module.steps(x)  # type: ignore[operator]
    assert isinstance(steps, rg.nn.Steps)
    return steps


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=["one", "batch", "nested"])
def test_output_is_that_of_forward(build: Callable[..., nn.Module], tokens: Tensor, lead: tuple[int, ...]) -> None:
    module = build().double().eval()
    x = tokens[0] if not lead else torch.stack((tokens, -tokens)) if len(lead) == 2 else tokens
    torch.testing.assert_close(steps_of(module, x).output, module(x), rtol=1e-11, atol=1e-12)
    assert module(x).shape[:-1] == x.shape[:-1]


def test_fields_follow_from_one_another(build: Callable[..., nn.Module], tokens: Tensor) -> None:
    module = build().double()
    steps = steps_of(module, tokens)
    assert steps.allowed.shape == steps.scores.shape == steps.weights.shape
    hidden = torch.where(steps.allowed, steps.scores, -torch.inf)
    if getattr(module, "sinks", None) is None:
        torch.testing.assert_close(steps.weights, torch.softmax(hidden, -1))
    else:
        share = torch.softmax(torch.nn.functional.pad(hidden, (0, 1), value=0.0), -1)
        torch.testing.assert_close(steps.weights, share[..., :-1])
    group = steps.queries.shape[-3] // steps.keys.shape[-3] if steps.queries.ndim > 3 else 1
    values = steps.values.repeat_interleave(group, -3) if group > 1 else steps.values
    torch.testing.assert_close(steps.context, steps.weights @ values)


def test_scores_are_scaled_dot_products() -> None:
    torch.manual_seed(1)
    module, x = rg.nn.SelfAttentionV2(5, 3), torch.randn(7, 5)
    steps = module.steps(x)
    torch.testing.assert_close(steps.scores, module.W_query(x) @ module.W_key(x).T / 3**0.5)


def test_one_head_has_no_dim_of_heads_and_several_have() -> None:
    x = torch.randn(2, 7, 5)
    assert rg.nn.CausalAttention(5, 3, 7, 0.0).steps(x).weights.shape == (2, 7, 7)
    assert rg.nn.MultiHeadAttentionWrapper(5, 3, 7, 0.0, 4).steps(x).weights.shape == (2, 4, 7, 7)
    grouped = rg.nn.MultiHeadAttention(5, 12, 7, 0.0, 4, num_kv_heads=2).steps(x)
    assert grouped.keys.shape == (2, 2, 7, 3)
    assert grouped.weights.shape == (2, 4, 7, 7)
    assert grouped.context.shape == (2, 4, 7, 3)
    assert grouped.output.shape == (2, 7, 12)


def test_forwards_arguments_are_those_of_steps() -> None:
    torch.manual_seed(1)
    module = rg.nn.MultiHeadAttention(5, 6, 7, 0.0, 2)
    x, context, mask = torch.randn(2, 3, 5), torch.randn(2, 11, 5), rg.Padding(torch.tensor([4, 11]))
    steps = module.steps(x, context=context, mask=mask)
    torch.testing.assert_close(steps.output, module(x, context=context, mask=mask))
    assert not steps.weights[0, :, :, 4:].any()


def test_dropout_does_not_touch_them() -> None:
    torch.manual_seed(1)
    module, x = rg.nn.CausalAttention(5, 3, 7, 0.5).train(), torch.randn(7, 5)
    torch.testing.assert_close(module.steps(x).output, module.eval()(x))


def test_a_row_that_sees_nothing_is_zero_and_its_gradient_too() -> None:
    module = rg.nn.MultiHeadAttention(5, 6, 7, 0.0, 2, mask=rg.SlidingWindow(None, -0) & rg.Prefix(3) & ~rg.Prefix(1))
    x = torch.randn(7, 5, requires_grad=True)
    steps = module.steps(x)
    assert not steps.allowed[:, 0].any()
    assert not steps.weights[:, 0].any()
    assert not steps.context[:, 0].any()
    (gradient,) = torch.autograd.grad(steps.weights.square().sum(), x)
    assert gradient.isfinite().all()


def test_they_print_themselves() -> None:
    module = rg.nn.MultiHeadAttention(5, 6, 7, 0.0, 2)
    text = repr(module.steps(torch.ones(3, 5)))
    for name in ("queries", "keys", "values", "scores", "allowed", "weights", "context"):
        assert re.search(rf"^{name} \(2, 3, 3\): \w", text, re.MULTILINE), name
    assert re.search(r"^output \(3, 6\): what forward returns", text, re.MULTILINE)
    assert "[1 0 0]" in text
    assert "[1.0000 0.0000 0.0000]" in text
    assert "[0.3333 0.3333 0.3333]" in text

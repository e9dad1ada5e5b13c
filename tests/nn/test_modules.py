"""What holds of every rung as a module: saving, copying, dtypes, dropout, and what it refuses."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import regard as rg

Build = Callable[..., nn.Module]


def test_a_state_dict_carries_everything_it_learned(build: Build, tokens: Tensor) -> None:
    module, other = build().double(), build().double()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(tokens), module(tokens))
    assert sorted(dict(module.named_parameters())) == sorted(module.state_dict())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_is_equal_and_independent(build: Build, tokens: Tensor, again: Callable[[nn.Module], nn.Module]) -> None:
    module = build().double()
    before = module(tokens)
    other = again(module)
    assert repr(other) == repr(module)
    assert torch.equal(other(tokens), before)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    assert torch.equal(module(tokens), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(build: Build, tokens: Tensor, dtype: torch.dtype) -> None:
    module = build()
    exact = copy.deepcopy(module).double()
    x = tokens.to(dtype)
    out = module.to(dtype)(x)
    assert out.dtype == dtype
    # A few roundings of values of order 1, in units of the dtype's own precision.
    torch.testing.assert_close(out.double(), exact(x.double()), rtol=0, atol=16 * torch.finfo(dtype).eps)


def test_autocast_computes_in_its_dtype_and_gradients_reach_float32_parameters(build: Build, tokens: Tensor) -> None:
    module, x = build(), tokens.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), module(x), rtol=0, atol=16 * torch.finfo(torch.bfloat16).eps)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in (x, *module.parameters()))


@pytest.mark.parametrize(
    ("kind", "more"),
    [(rg.nn.CausalAttention, ()), (rg.nn.MultiHeadAttentionWrapper, (2,)), (rg.nn.MultiHeadAttention, (2,))],
    ids=["causal", "wrapper", "multi_head"],
)
def test_dropout_happens_in_training_only_and_follows_the_seed(kind: type[nn.Module], more: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    module, x = kind(5, 6, 13, 0.5, *more), torch.randn(2, 13, 5)

    def under(seed: int) -> Tensor:
        torch.manual_seed(seed)
        out = module(x)
        assert isinstance(out, Tensor)
        return out

    assert torch.equal(under(1), under(1))
    assert not torch.equal(under(1), under(2))
    module.eval()
    assert torch.equal(under(1), under(2))


def test_dropout_is_the_engines() -> None:
    torch.manual_seed(1)
    module, x = rg.nn.CausalAttention(5, 3, 7, 0.5).double(), torch.randn(2, 7, 5, dtype=torch.float64)
    q, k, v = (layer(x)[:, None] for layer in (module.W_query, module.W_key, module.W_value))
    torch.manual_seed(2)
    out = module(x)
    torch.manual_seed(2)
    torch.testing.assert_close(out, rg.attention(q, k, v, mask=rg.Causal(), dropout_p=0.5)[:, 0])


def test_each_sequence_of_a_batch_is_its_own(build: Build, tokens: Tensor) -> None:
    module = build().double()
    torch.testing.assert_close(module(tokens), torch.stack([module(x) for x in tokens]))


def test_no_tokens_give_no_outputs(build: Build, tokens: Tensor) -> None:
    out = build().double()(tokens[:, :0])
    assert out.shape[:2] == (3, 0)


@pytest.mark.parametrize("backend", ["reference", "blockwise"])
def test_the_backend_asked_for_computes_the_same(build: Build, tokens: Tensor, backend: str) -> None:
    chosen, asked = build().double(), build(backend=backend).double()
    asked.load_state_dict(chosen.state_dict())
    torch.testing.assert_close(asked(tokens), chosen(tokens))


def test_an_unknown_backend_is_refused(build: Build, tokens: Tensor) -> None:
    with pytest.raises(rg.ArgumentError, match=r"backend must be one of 'native', .*: got 'fastest'"):
        build(backend="fastest").double()(tokens)


def test_token_ids_are_refused(build: Build) -> None:
    with pytest.raises(rg.KindError, match=r"x holds embedded tokens .*: got int64 \(2, 5\)\. .*nn\.Embedding"):
        build()(torch.zeros(2, 5, dtype=torch.int64))


def test_one_vector_is_refused(build: Build) -> None:
    with pytest.raises(rg.ShapeError, match=r"x must be \(tokens, .*\) or \(batch, tokens, .*\): got \(5,\)"):
        build()(torch.zeros(5))


@pytest.mark.parametrize("kind", [rg.nn.SelfAttentionV1, rg.nn.SelfAttentionV2])
def test_another_number_of_features_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(rg.ShapeError, match=r"\(tokens, d_in = 5\) .*: got \(2, 7, 4\)"):
        kind(5, 3)(torch.zeros(2, 7, 4))


@pytest.mark.parametrize(
    ("kind", "more"),
    [(rg.nn.CausalAttention, ()), (rg.nn.MultiHeadAttentionWrapper, (2,)), (rg.nn.MultiHeadAttention, (2,))],
    ids=["causal", "wrapper", "multi_head"],
)
def test_more_tokens_than_context_length_are_refused(kind: type[nn.Module], more: tuple[int, ...]) -> None:
    message = r"x has 7 tokens, .* context_length=6\. Make it with context_length=7, or .*x\[\.\.\., -6:, :\]"
    with pytest.raises(rg.ShapeError, match=message):
        kind(5, 6, 6, 0.0, *more)(torch.zeros(2, 7, 5))


def test_reprs() -> None:
    assert repr(rg.nn.SimpleSelfAttention()) == "SimpleSelfAttention()"
    assert repr(rg.nn.SelfAttentionV1(3, 2)) == "SelfAttentionV1(3, 2)"
    assert "context_length=6, dropout=0.1" in repr(rg.nn.CausalAttention(3, 2, 6, 0.1))
    module = rg.nn.MultiHeadAttention(
        3, 4, 6, 0.1, 4, num_kv_heads=2, mask=rg.Causal() & rg.SlidingWindow(3), score_mod=rg.Softcap(9.0), sinks=True
    )
    assert (
        "num_heads=4, num_kv_heads=2, head_dim=1, context_length=6, dropout=0.1, "
        "mask=Causal() & SlidingWindow(3, 0), score_mod=Softcap(9.0), sinks=True" in repr(module)
    )
    several = rg.nn.MultiHeadAttention(3, 4, 6, 0.1, 2, score_mod=[rg.Softcap(9.0), rg.RelativeBias(2)])
    assert "(score_mod): [Softcap(9.0), RelativeBias(2, buckets=32, max_distance=128)]" in repr(several)


def test_gradients_per_sequence_by_vmap_on_the_reference(build: Build, tokens: Tensor) -> None:
    module = build(backend="reference").double()
    parameters: dict[str, Tensor] = dict(module.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, parameters, (x,))
        return out.square().sum()

    together = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, tokens)
    for n, x in enumerate(tokens):
        torch.testing.assert_close({k: g[n] for k, g in together.items()}, torch.func.grad(loss)(parameters, x))

"""`MultiHeadAttention` with rotary positions and query-key norm: its numbers, and its manners as a module."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.nn import Llama3Scaling, RotaryEmbedding, YaRN

ROPES = {
    "half-split": RotaryEmbedding(4),
    "interleaved": RotaryEmbedding(2, layout="interleaved"),
    "yarn": RotaryEmbedding(4, scaling=YaRN(4.0, 8)),
    "llama3": RotaryEmbedding(4, base=5e5, scaling=Llama3Scaling(8.0, 16)),
}


def make(rope: RotaryEmbedding | None, **options: object) -> rg.nn.MultiHeadAttention:
    torch.manual_seed(7)
    options = {"num_kv_heads": 2, "head_dim": 4, "qk_norm": nn.RMSNorm} | options
    module = rg.nn.MultiHeadAttention(5, 7, 13, 0.0, 6, rope=rope, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    return module


@pytest.fixture(params=ROPES)
def module(request: pytest.FixtureRequest) -> rg.nn.MultiHeadAttention:
    return make(ROPES[request.param])


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 11, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_norms_come_before_the_turn_and_each_head_has_its_own(module: rg.nn.MultiHeadAttention, x: Tensor) -> None:
    module = module.double()
    assert module.rope is not None
    assert isinstance(module.q_norm, nn.RMSNorm)
    assert isinstance(module.k_norm, nn.RMSNorm)

    def heads(layer: nn.Module, count: int) -> Tensor:
        out: Tensor = layer(x).view(2, 11, count, 4).transpose(1, 2)
        return out

    q, k, v = heads(module.W_query, 6), heads(module.W_key, 2), heads(module.W_value, 2)
    eps = torch.finfo(torch.float64).eps
    q = q / (q.square().mean(-1, keepdim=True) + eps).sqrt() * module.q_norm.weight
    k = k / (k.square().mean(-1, keepdim=True) + eps).sqrt() * module.k_norm.weight
    q, k = module.rope(q, k, torch.arange(11))
    context = rg.attention(q, k, v, mask=rg.Causal(), backend="reference")
    torch.testing.assert_close(module(x), module.out_proj(context.transpose(1, 2).flatten(2)))
    steps = module.steps(x)
    torch.testing.assert_close(steps.keys, k)
    torch.testing.assert_close(steps.output, module(x))


def test_only_distances_count(module: rg.nn.MultiHeadAttention, x: Tensor) -> None:
    module = module.double()
    torch.testing.assert_close(module(x, positions=torch.arange(11) + 977), module(x))
    assert not torch.allclose(module(x, positions=2 * torch.arange(11)), module(x))


def test_positions_leave_the_mask_alone(x: Tensor) -> None:
    module = make(RotaryEmbedding(4), mask=rg.Causal() & rg.SlidingWindow(2)).double()
    reversed_ = module.steps(x, positions=torch.arange(11).flip(0))
    assert torch.equal(reversed_.allowed, module.steps(x).allowed)


def test_a_state_dict_has_the_names_it_always_had() -> None:
    layers = {f"{n}.{p}" for n in ("W_query", "W_key", "W_value") for p in ("weight",)}
    plain = layers | {"out_proj.weight", "out_proj.bias"}
    assert set(make(RotaryEmbedding(4), qk_norm=None).state_dict()) == plain
    full = make(RotaryEmbedding(4), sinks=True)
    assert set(full.state_dict()) == plain | {"sinks", "q_norm.weight", "k_norm.weight"}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(module: rg.nn.MultiHeadAttention, x: Tensor, again: object) -> None:
    module = module.double()
    other = again(module)  # type: ignore[operator]
    assert repr(other) == repr(module)
    assert torch.equal(other(x), module(x))


def test_made_on_meta_and_filled_it_is_the_same(module: rg.nn.MultiHeadAttention, x: Tensor) -> None:
    with torch.device("meta"):
        other = make(copy.deepcopy(module.rope), sinks=True)
    assert {p.device.type for p in other.parameters()} == {"meta"}
    other.to_empty(device="cpu")
    other.load_state_dict(module.state_dict() | {"sinks": torch.full((6,), -torch.inf)})
    torch.testing.assert_close(other.double()(x), module.double()(x))


def test_autocast(module: rg.nn.MultiHeadAttention, x: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x.float())
    assert out.dtype == torch.bfloat16
    # Scores of order 10 here: an error of bfloat16's size in them is as large in the weights.
    torch.testing.assert_close(out.float(), module(x.float()), rtol=0, atol=0.2)


def test_one_graph(module: rg.nn.MultiHeadAttention, x: Tensor) -> None:
    torch.compiler.reset()
    module.backend = "torch"
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = x.float().requires_grad_()
    wanted = [x, *module.parameters()]
    for arguments in ({}, {"positions": torch.arange(11) * 3}):
        out, expected = compiled(x, **arguments), module(x, **arguments)
        torch.testing.assert_close(out, expected)
        ours, theirs = (torch.autograd.grad(y.square().sum(), wanted) for y in (out, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_its_repr_shows_them() -> None:
    text = repr(make(ROPES["yarn"]))
    assert "(rope): RotaryEmbedding(4, base=10000.0, layout='half-split', scaling=YaRN(factor=4.0" in text
    assert "(q_norm): RMSNorm((4,)" in text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rope": 4}, rg.KindError, r"rope takes a RotaryEmbedding, such as RotaryEmbedding\(3\): got 4"),
        ({"rope": RotaryEmbedding(4)}, rg.ShapeError, r"dim=4 features of a head, and a head has head_dim=3"),
        ({"qk_norm": "rms"}, rg.KindError, r"such as torch\.nn\.RMSNorm: got 'rms'"),
        ({"qk_norm": lambda width: width}, rg.KindError, r"must make a torch\.nn\.Module: got 3"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rg.nn.MultiHeadAttention(5, 6, 6, 0.0, 2, **options)  # type: ignore[arg-type]

"""`regard.replace` on torch's own transformers: equal numbers, an honest report, and everything back where it was."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.adapters.torch_mha import MultiheadAttention

E, H, L = 12, 2, 5


def encoder(**options: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(E, H, dim_feedforward=17, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 3)


def test_an_encoder_gives_the_same_in_training_with_gradients() -> None:
    model = encoder()
    x, pad = torch.randn(2, L, E), torch.arange(L) >= torch.tensor([[L], [3]])
    causal = nn.Transformer.generate_square_subsequent_mask(L)
    arguments: list[dict[str, Any]] = [
        {},
        {"src_key_padding_mask": pad},
        {"mask": causal, "is_causal": True},
        {"mask": causal.isinf(), "src_key_padding_mask": pad},
    ]
    leaves = list(model.parameters())
    for given in arguments:
        expected = model(x, **given)
        gradients = torch.autograd.grad(expected.square().sum(), leaves)
        with rg.replace(model) as done:
            assert len(done.replaced) == 3
            assert list(map(id, model.parameters())) == list(map(id, leaves))
            out = model(x, **given)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out.square().sum(), leaves), gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("padded", [False, True])
def test_torchs_fast_paths_in_eval_do_not_bypass_it(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder().eval()
    x = torch.randn(2, L, E)
    given = {"src_key_padding_mask": torch.arange(L) >= torch.tensor([[L], [3]])} if padded else {}
    real, calls = MultiheadAttention.forward, []

    def counted(self: MultiheadAttention, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        calls.append(self)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MultiheadAttention, "forward", counted)
    seen = torch.ones(2, L, dtype=torch.bool) if not padded else ~given["src_key_padding_mask"]
    with torch.inference_mode():
        expected = model(x, **given)
        with rg.replace(model):
            calls.clear()
            out = model(x, **given)
        assert len(calls) == 3
        # Where torch packs, it returns zeros at the padding.
        torch.testing.assert_close(out[seen], expected[seen])
        torch.testing.assert_close(model(x, **given), expected)
        assert len(calls) == 3


def test_a_whole_transformer() -> None:
    model = nn.Transformer(E, H, 2, 2, 17, dropout=0.0, batch_first=True).eval()
    source, target = torch.randn(2, L, E), torch.randn(2, 7, E)
    causal = nn.Transformer.generate_square_subsequent_mask(7)
    expected = model(source, target, tgt_mask=causal, tgt_is_causal=True)
    done = rg.replace(model)
    assert len(done.replaced) == 6
    assert "decoder.layers.1.multihead_attn" in done.replaced
    torch.testing.assert_close(model(source, target, tgt_mask=causal, tgt_is_causal=True), expected)


def test_undo_puts_everything_back() -> None:
    model = encoder()
    before = dict(model.named_modules())
    state = {name: x.clone() for name, x in model.state_dict().items()}
    done = rg.replace(model)
    assert list(model.state_dict()) == list(state)
    assert not vars(model)["use_nested_tensor"]
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, L, E)).square().sum().backward()
    optimizer.step()
    trained = {name: x.clone() for name, x in model.state_dict().items()}
    done.undo()
    done.undo()
    assert dict(model.named_modules()) == before
    assert vars(model)["use_nested_tensor"]
    assert not model.layers[0].self_attn.training
    assert not torch.equal(trained["layers.0.self_attn.in_proj_weight"], state["layers.0.self_attn.in_proj_weight"])
    assert all(torch.equal(x, trained[name]) for name, x in model.state_dict().items())


def test_parameters_assigned_meanwhile_survive_undo() -> None:
    model, other = encoder(), encoder()
    with rg.replace(model):
        model.load_state_dict(other.state_dict(), assign=True)
    x = torch.randn(2, L, E)
    torch.testing.assert_close(model.eval()(x), other.eval()(x))


def test_undo_leaves_alone_what_was_put_there_since() -> None:
    holder = nn.ModuleDict({"attention": nn.MultiheadAttention(E, H)})
    done = rg.replace(nn.Sequential(holder))
    holder["attention"] = nn.Identity()
    done.undo()
    assert isinstance(holder["attention"], nn.Identity)


def test_an_exception_inside_the_block_undoes_too() -> None:
    model = encoder()
    with pytest.raises(RuntimeError, match="stop"), rg.replace(model):
        raise RuntimeError("stop")
    assert isinstance(model.layers[0].self_attn, nn.MultiheadAttention)


def test_a_shared_module_stays_shared() -> None:
    shared = nn.MultiheadAttention(E, H)
    model = nn.ModuleDict({"a": shared, "b": shared, "c": nn.MultiheadAttention(E, H)})
    done = rg.replace(model)
    assert done.replaced == ("a", "b", "c")
    assert model["a"] is model["b"]
    assert model["a"] is not model["c"]
    done.undo()
    assert model["a"] is model["b"] is shared


class Child(nn.MultiheadAttention):
    """May compute anything."""


def test_what_is_skipped_is_reported_with_its_reason() -> None:
    hooked = nn.MultiheadAttention(E, H)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.ModuleDict(
        {
            "plain": nn.MultiheadAttention(E, H),
            "extra": nn.MultiheadAttention(E, H, add_bias_kv=True),
            "child": Child(E, H),
            "hooked": hooked,
        }
    )
    before = dict(model.items())
    done = rg.replace(model)
    assert done.replaced == ("plain",)
    assert list(done.skipped) == ["extra", "child", "hooked"]
    assert all(model[name] is before[name] for name in done.skipped)
    text = repr(done)
    assert text.startswith("replaced 1, skipped 3\n  plain\n  extra: skipped, ")
    assert "add_bias_kv=True" in done.skipped["extra"]
    assert "got a Child" in done.skipped["child"]
    assert "hooks" in done.skipped["hooked"]


@pytest.mark.parametrize(
    "register",
    [
        lambda m: m.register_state_dict_pre_hook(lambda *_: None),
        lambda m: m.register_state_dict_post_hook(lambda *_: None),
        lambda m: m.register_load_state_dict_pre_hook(lambda *_: None),
        lambda m: m.register_load_state_dict_post_hook(lambda *_: None),
    ],
)
def test_hooks_around_a_state_dict_are_not_dropped(register: Any) -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(E, H)})
    register(model["attention"])
    done = rg.replace(model)
    assert done.replaced == ()
    assert "state dict" in done.skipped["attention"]


@pytest.mark.parametrize(
    "hold",
    [
        lambda m: m.register_buffer("scale", torch.ones(1)),
        lambda m: m.register_parameter("gate", nn.Parameter(torch.ones(1))),
        lambda m: m.add_module("adapter", nn.Linear(E, E)),
    ],
)
def test_what_someone_put_into_a_module_stays_in_the_state_dict(hold: Any) -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(E, H)})
    hold(model["attention"])
    before = set(model.state_dict())
    done = rg.replace(model)
    assert set(model.state_dict()) == before
    assert "also holds" in done.skipped["attention"]


def test_a_replaced_model_copies_and_pickles() -> None:
    model = encoder().eval()
    rg.replace(model)
    x = torch.randn(2, L, E)
    expected = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [(nn.MultiheadAttention(E, H), r"itself\. Convert it with .*from_torch"), (3, "takes a torch.nn.Module: got 3")],
)
def test_what_is_no_model_is_refused(model: Any, message: str) -> None:
    with pytest.raises(rg.KindError, match=message):
        rg.replace(model)

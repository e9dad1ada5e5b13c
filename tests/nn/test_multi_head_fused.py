"""One parameter for queries, keys and values: the same module, the same state dict."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

import regard as rg

WIDTHS = (12, 4, 4)


def make(**options: Any) -> rg.nn.MultiHeadAttention:
    torch.manual_seed(3)
    given: dict[str, Any] = {"num_kv_heads": 2, "qk_norm": nn.RMSNorm, "sinks": True, "qkv_bias": True}
    return rg.nn.MultiHeadAttention(10, 12, 16, 0.0, 6, **given | options)


def pair(**options: Any) -> tuple[rg.nn.MultiHeadAttention, rg.nn.MultiHeadAttention]:
    """One module fused and one not, of the same weights."""
    separate = make(**options)
    fused = make(fused=True, **options)
    with torch.no_grad():
        for p in separate.parameters():
            p.normal_()
    fused.load_state_dict(separate.state_dict())
    return fused, separate


def tokens(length: int = 9) -> Tensor:
    return torch.randn(2, length, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_state_dict_is_the_same_both_ways(qkv_bias: bool) -> None:
    fused, separate = pair(qkv_bias=qkv_bias)
    assert [name for name, _ in fused.named_parameters() if "in_proj" in name]
    ours, theirs = fused.state_dict(), separate.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    back = make(qkv_bias=qkv_bias)
    back.load_state_dict(ours)
    assert torch.equal(back(tokens()), separate(tokens()))


@pytest.mark.parametrize("crossing", [False, True], ids=["self", "cross"])
def test_output_and_gradients_are_those_of_three_layers(crossing: bool) -> None:
    fused, separate = pair()
    given = {"context": tokens(5) + 1} if crossing else {}
    x, y = tokens().requires_grad_(), tokens().requires_grad_()
    out, expected = fused(x, **given), separate(y, **given)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    for each in (out, expected):
        each.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-3)
    for kind in ("weight", "bias"):
        parts = getattr(fused.in_proj, kind).grad.split(WIDTHS)
        for name, part in zip(("W_query", "W_key", "W_value"), parts, strict=True):
            torch.testing.assert_close(part, getattr(getattr(separate, name), kind).grad, rtol=1e-4, atol=1e-3)


def test_rotary_positions_and_a_cache_go_with_it() -> None:
    fused, separate = pair(rope=rg.nn.RotaryEmbedding(2))
    with torch.no_grad():
        for cache in (rg.cache.FullCache(), rg.cache.SinkCache(2, 14)):
            steps = torch.cat([fused(part, cache=cache) for part in tokens().split([4, 1, 1, 3], 1)], 1)
            torch.testing.assert_close(steps, separate(tokens()), rtol=1e-5, atol=1e-5)


def test_inside_a_model_by_its_prefix() -> None:
    ours, theirs = pair()
    fused, separate = (nn.ModuleDict({"a": one, "b": nn.Linear(12, 12)}) for one in (ours, theirs))
    assert list(fused.state_dict()) == list(separate.state_dict())
    separate.load_state_dict(fused.state_dict())
    fused.load_state_dict(separate.state_dict())
    assert torch.equal(ours.in_proj.weight[:12], theirs.W_query.weight)


def test_copies_pickles_and_safetensors_keep_it(tmp_path: Path) -> None:
    fused, separate = pair()
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    for copied in (copy.deepcopy(fused), torch.load(file, weights_only=False)):
        assert list(copied.state_dict()) == list(separate.state_dict())
        with torch.no_grad():
            copied.in_proj.weight.zero_()
        copied.load_state_dict(separate.state_dict())
        assert torch.equal(copied(tokens()), fused(tokens()))
    assert fused.in_proj.weight.any()
    save_model(fused, str(tmp_path / "layer.safetensors"))
    other = make()
    load_model(other, str(tmp_path / "layer.safetensors"))
    assert torch.equal(other(tokens()), separate(tokens()))


def test_a_module_on_the_meta_device_takes_the_tensors_of_three() -> None:
    with torch.device("meta"):
        fused = make(fused=True)
    separate = make()
    fused.load_state_dict(separate.state_dict(), assign=True)
    torch.testing.assert_close(fused(tokens()), separate(tokens()), rtol=1e-5, atol=1e-5)


def test_part_of_a_state_dict_is_loaded_and_the_rest_reported() -> None:
    fused, separate = make(fused=True), make()
    with torch.no_grad():
        separate.W_key.weight.fill_(7)
    kept = fused.in_proj.weight.detach().clone()
    found = fused.load_state_dict({"W_key.weight": separate.W_key.weight, "stray": torch.zeros(1)}, strict=False)
    assert found.unexpected_keys == ["stray"]
    assert "W_query.weight" in found.missing_keys
    assert "W_key.weight" not in found.missing_keys
    assert "in_proj.weight" not in found.missing_keys
    assert bool((fused.in_proj.weight[12:16] == 7).all())
    assert torch.equal(fused.in_proj.weight[:12], kept[:12])
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: .*W_value.bias"):
        fused.load_state_dict({"W_key.weight": separate.W_key.weight})


def test_a_size_that_does_not_fit_is_named_as_in_the_checkpoint() -> None:
    weights = make().state_dict() | {"W_key.weight": torch.zeros(5, 10)}
    with pytest.raises(RuntimeError, match=r"size mismatch for W_key\.weight: .*\[5, 10\].*\[4, 10\]"):
        make(fused=True).load_state_dict(weights)


# PEFT asks for things that transformers has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("crossing", [False, True], ids=["self", "cross"])
def test_lora_attaches_to_the_one_projection(crossing: bool) -> None:
    peft = pytest.importorskip("peft")
    given = {"context": tokens(5) + 1} if crossing else {}
    adapted = peft.get_peft_model(nn.Sequential(make(fused=True)), peft.LoraConfig(r=2, target_modules=["in_proj"]))
    layer = adapted.base_model.model[0]
    before = layer(tokens(), **given).detach()
    with torch.no_grad():
        layer.in_proj.lora_B["default"].weight.fill_(0.3)
    after = layer(tokens(), **given).detach()
    assert not torch.allclose(after, before)
    merged = adapted.merge_and_unload()[0]
    torch.testing.assert_close(merged(tokens(), **given), after, rtol=1e-4, atol=1e-5)
    separate = make()
    separate.load_state_dict(merged.state_dict())
    torch.testing.assert_close(separate(tokens(), **given), after, rtol=1e-4, atol=1e-5)


def test_the_adapters_load_into_it() -> None:
    plain = {"num_kv_heads": None, "qk_norm": None, "sinks": False}
    fused, separate = make(fused=True, **plain), make(**plain)
    rg.adapters.book.load_state_dict(fused, separate.state_dict())
    torch.testing.assert_close(fused(tokens()), separate(tokens()))
    with torch.no_grad():
        separate.W_value.weight.normal_()
    rg.adapters.gpt2.load_state_dict(fused, rg.adapters.gpt2.state_dict(separate))
    torch.testing.assert_close(fused(tokens()), separate(tokens()))
    fused, separate = make(fused=True), make()
    rg.adapters.llama.load_state_dict(fused, rg.adapters.llama.state_dict(separate))
    assert rg.adapters.llama.state_dict(fused).keys() == rg.adapters.llama.state_dict(separate).keys()
    torch.testing.assert_close(fused(tokens()), separate(tokens()))


def test_it_compiles_into_one_graph() -> None:
    torch.compiler.reset()
    fused, _ = pair()
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens()), fused(tokens()))

"""`MultiHeadAttention` among other people's tools: safetensors, the meta device, PEFT, FSDP."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

import regard as rg


def make(**options: Any) -> rg.nn.MultiHeadAttention:
    torch.manual_seed(3)
    given: dict[str, Any] = {"num_kv_heads": 2, "rope": rg.nn.RotaryEmbedding(2), "qk_norm": nn.RMSNorm, "sinks": True}
    return rg.nn.MultiHeadAttention(12, 12, 16, 0.0, 6, **given | options)


def tokens() -> Tensor:
    return torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(1))


def test_safetensors_there_and_back(tmp_path: Path) -> None:
    module, other = make(score_mod=rg.RelativeBias(6)), make(score_mod=rg.RelativeBias(6))
    with torch.no_grad():
        for p in module.parameters():
            p.normal_()
    save_model(module, str(tmp_path / "layer.safetensors"))
    load_model(other, str(tmp_path / "layer.safetensors"))
    assert torch.equal(other(tokens()), module(tokens()))


def test_made_on_the_meta_device_it_is_filled_later() -> None:
    with torch.device("meta"):
        module = make(mask=rg.Causal() & rg.SlidingWindow(3))
    assert all(p.is_meta for p in module.parameters())
    assert make().state_dict().keys() == module.state_dict().keys()
    filled = copy.deepcopy(module).to_empty(device="cpu")
    source = make()
    filled.load_state_dict(source.state_dict())
    expected = source(tokens(), mask=rg.SlidingWindow(3))
    assert torch.equal(filled(tokens()), expected)
    assigned = copy.deepcopy(module)
    assigned.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(assigned(tokens()), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"mask": rg.Causal() & rg.Document(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1]))},
        {"score_mod": rg.Alibi(torch.linspace(1.0, 0.1, 6))},
        {"score_mod": [rg.Softcap(5.0), rg.Bias(torch.linspace(-1.0, 1.0, 81).view(9, 9))]},
    ],
    ids=["document", "alibi", "bias"],
)
def test_what_no_state_dict_fills_keeps_its_numbers(options: dict[str, Any]) -> None:
    source = make(**options)
    with torch.device("meta"):
        module = make(**copy.deepcopy(options))
    module.to_empty(device="cpu").load_state_dict(source.state_dict())
    assert torch.equal(module(tokens()), source(tokens()))
    torch.testing.assert_close(module.double()(tokens().double()), source(tokens()).double(), rtol=1e-4, atol=1e-5)


def test_without_numbers_it_is_refused_and_not_filled_with_any() -> None:
    with torch.device("meta"):
        masked = make(mask=rg.Document(torch.zeros(9, dtype=torch.int64)))
        biased = make(score_mod=rg.Alibi.for_heads(6))
    for module, name in ((masked, "Document's ids"), (biased, "Alibi's slopes")):
        module.to_empty(device="cpu").load_state_dict(make().state_dict())
        with pytest.raises(rg.ArgumentError, match=f"{name} must be on the device of q, k and v .cpu.: got .* meta"):
            module(tokens())


def test_no_two_parameters_share_memory() -> None:
    pointers = [p.untyped_storage().data_ptr() for p in make(score_mod=rg.RelativeBias(6)).parameters()]
    assert len(set(pointers)) == len(pointers)


# PEFT asks for things that transformers has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_lora_attaches_by_name_and_learns() -> None:
    peft = pytest.importorskip("peft")
    model = nn.Sequential(make())
    before = model(tokens()).detach()
    config = peft.LoraConfig(r=2, target_modules=["W_query", "W_value"], init_lora_weights=True)
    adapted = peft.get_peft_model(model, config)
    trained = sorted(name for name, p in adapted.named_parameters() if p.requires_grad)
    assert [name.split(".")[-4] for name in trained] == ["W_query", "W_query", "W_value", "W_value"]
    torch.testing.assert_close(adapted(tokens()), before)
    optimizer = torch.optim.SGD((p for p in adapted.parameters() if p.requires_grad), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(tokens()).square().sum().backward()
        optimizer.step()
    after = adapted(tokens()).detach()
    assert not torch.allclose(after, before)
    torch.testing.assert_close(adapted.merge_and_unload()(tokens()), after, rtol=1e-4, atol=1e-5)


@pytest.fixture
def one_process(tmp_path: Path) -> Any:
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(os.name == "nt", reason="gloo with a file as its store is for POSIX")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_fsdp_shards_it_and_gives_the_same_gradients(one_process: None, fused: bool) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    module, plain = make(fused=fused), make(fused=fused)
    fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    assert all(isinstance(p, DTensor) for p in module.parameters())
    out, expected = module(tokens()), plain(tokens())
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert isinstance(one.grad, DTensor)
        torch.testing.assert_close(one.grad.full_tensor(), other.grad)
    saved, expected_keys = module.state_dict(), make().state_dict().keys()
    assert saved.keys() == expected_keys
    module.load_state_dict({name: x + 1 for name, x in saved.items()})
    for name, x in module.state_dict().items():
        torch.testing.assert_close(x.full_tensor(), plain.state_dict()[name] + 1)


@pytest.mark.skipif(os.name == "nt", reason="gloo with a file as its store is for POSIX")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_a_sharded_model_gives_and_takes_whole_checkpoints(one_process: None, fused: bool) -> None:
    from torch.distributed.checkpoint import state_dict as checkpoint
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    source = make(fused=fused, qkv_bias=True)
    with torch.device("meta"):
        module = make(fused=fused, qkv_bias=True)
    fully_shard(module, mesh=init_device_mesh("cpu", (1,)))
    module.to_empty(device="cpu")
    options = checkpoint.StateDictOptions(full_state_dict=True)
    checkpoint.set_model_state_dict(module, dict(source.state_dict()), options=options)
    torch.testing.assert_close(module(tokens()), source(tokens()))
    saved = checkpoint.get_model_state_dict(module, options=options)
    assert saved.keys() == source.state_dict().keys()
    torch.testing.assert_close(saved, dict(source.state_dict()), rtol=0, atol=0)

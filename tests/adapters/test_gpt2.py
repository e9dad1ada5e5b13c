"""GPT-2's fused attention and what regard makes of it, on transformers' own modules with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard.adapters import gpt2

transformers = pytest.importorskip("transformers")
E, H, LENGTH = 12, 3, 9


@pytest.fixture
def model() -> Any:
    config = transformers.GPT2Config(vocab_size=31, n_positions=LENGTH, n_embd=E, n_layer=2, n_head=H, n_inner=16)
    config._attn_implementation = "eager"
    made = transformers.GPT2LMHeadModel(config).eval()
    for p in made.parameters():
        nn.init.normal_(p, std=0.4)
    return made


def layer(**options: Any) -> rg.nn.MultiHeadAttention:
    return rg.nn.MultiHeadAttention(E, E, LENGTH, 0.0, H, **{"qkv_bias": True} | options).eval()


def seen_in(model: Any, part: nn.Module) -> tuple[Tensor, Tensor]:
    """What goes into one attention layer and comes out in a forward pass of the whole model."""
    caught: list[Tensor] = []
    hook = part.register_forward_hook(
        lambda _, args, kwargs, out: caught.extend((args[0] if args else kwargs["hidden_states"], out[0])),
        with_kwargs=True,
    )
    with torch.no_grad():
        model(torch.arange(2 * LENGTH).reshape(2, LENGTH))
    hook.remove()
    return caught[0], caught[1]


def test_a_layer_of_a_model_gives_what_it_gave_there(model: Any) -> None:
    theirs = model.transformer.h[1].attn
    ours = gpt2.from_transformers(theirs)
    x, expected = seen_in(model, theirs)
    torch.testing.assert_close(ours(x), expected)
    assert ours.dropout == pytest.approx(0.1)
    assert not ours.training


def test_a_checkpoint_of_the_whole_model_by_prefix(model: Any) -> None:
    ours = layer()
    gpt2.load_state_dict(ours, model.state_dict(), "transformer.h.1.attn.")
    x, expected = seen_in(model, model.transformer.h[1].attn)
    torch.testing.assert_close(ours(x), expected)


def test_there_and_back_is_the_same_bits(model: Any) -> None:
    theirs = model.transformer.h[0].attn
    before = {key: x.clone() for key, x in theirs.state_dict().items()}
    ours = gpt2.from_transformers(theirs)
    made = gpt2.state_dict(ours)
    assert all(torch.equal(x, before[key]) for key, x in made.items())
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(0.25)
    assert torch.equal(theirs.c_attn.weight, before["c_attn.weight"]), "the weights are copies"
    gpt2.to_transformers(ours, theirs)
    x, out = seen_in(model, theirs)
    torch.testing.assert_close(out, ours(x))
    assert not torch.equal(theirs.c_attn.weight, before["c_attn.weight"])


def test_the_causal_triangle_of_old_checkpoints_is_left_out_and_another_is_not(model: Any) -> None:
    old = {"h." + key: x for key, x in gpt2.state_dict(layer()).items()}
    old["h.bias"] = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.uint8).tril()
    old["h.masked_bias"] = torch.tensor(-1e4)
    gpt2.load_state_dict(layer(), old, "h.")
    old["h.bias"] = torch.ones(1, 1, LENGTH, LENGTH)
    with pytest.raises(rg.ArgumentError, match=r"'h\.bias' is left out only where it is GPT-2's causal triangle"):
        gpt2.load_state_dict(layer(), old, "h.")


def test_training_with_the_dropout_behind_it_is_refused(model: Any) -> None:
    with pytest.raises(rg.ArgumentError, match=r"drops 0\.1 .*resid_dropout.* training mode.*nn\.Dropout\(0\.1\)"):
        gpt2.from_transformers(model.train().transformer.h[0].attn)


def test_other_scales_and_cross_attention_are_refused() -> None:
    config = transformers.GPT2Config(n_embd=E, n_head=H, n_layer=2, scale_attn_by_inverse_layer_idx=True)
    config._attn_implementation = "eager"
    model = transformers.GPT2Model(config).eval()
    gpt2.from_transformers(model.h[0].attn)
    with pytest.raises(rg.ArgumentError, match=r"1/√D = 0\.5: got a module that scales them by 0\.25"):
        gpt2.from_transformers(model.h[1].attn)
    crossing = transformers.models.gpt2.modeling_gpt2.GPT2Attention(config, is_cross_attention=True, layer_idx=0)
    with pytest.raises(rg.ArgumentError, match=r"q_attn.* Only self-attention is converted"):
        gpt2.from_transformers(crossing.eval())


def test_a_module_that_means_something_else_is_refused_and_nothing_changes() -> None:
    checkpoint = gpt2.state_dict(layer())
    for options in ({"mask": None}, {"score_mod": rg.Softcap(0.1)}, {"rope": rg.nn.RotaryEmbedding(4)}):
        module = layer(**options)
        before = {key: x.clone() for key, x in module.state_dict().items()}
        with pytest.raises(rg.ArgumentError, match=r"not equivalent: on one input they differ"):
            gpt2.load_state_dict(module, checkpoint)
        assert all(torch.equal(x, before[key]) for key, x in module.state_dict().items())


def test_a_wrong_copy_back_is_taken_back(model: Any) -> None:
    theirs = model.transformer.h[0].attn
    before = theirs.c_attn.weight.clone()
    with pytest.raises(rg.ArgumentError, match="not equivalent"):
        gpt2.to_transformers(layer(mask=None), theirs)
    assert torch.equal(theirs.c_attn.weight, before)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda c: c.update({"a.c_atn.weight": c.pop("a.c_attn.weight")}), r"'a\.c_atn\.weight'.* mean 'a\.c_attn\.w"),
        (lambda c: c.pop("a.c_proj.bias"), r"needs 'a\.c_proj\.bias', which the checkpoint lacks"),
        (lambda c: c.update({"a.c_attn.weight": torch.zeros(E, E)}), r"\(12, 36\) in the module, but \(12, 12\)"),
        (lambda c: c.update({"a.c_attn.bias": torch.zeros(3 * E, device="meta")}), "weights on the meta device"),
    ],
)
def test_every_unmatched_key_is_named_with_its_nearest(do: Any, message: str) -> None:
    checkpoint = gpt2.state_dict(layer(), "a.")
    do(checkpoint)
    with pytest.raises(rg.RegardError, match=message):
        gpt2.load_state_dict(layer(), checkpoint, "a.")


def test_a_prefix_that_is_not_there_names_the_nearest_key() -> None:
    with pytest.raises(rg.ArgumentError, match=r"starts with 'h\.0\.attn\.'.* mean 'transformer\.h\.0\.attn\.c_attn"):
        gpt2.load_state_dict(layer(), gpt2.state_dict(layer(), "transformer.h.0.attn."), "h.0.attn.")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (layer(num_kv_heads=1), "as many key/value heads as query heads: got 1 for 3"),
        (layer(sinks=True), "the module has 'sinks', which GPT-2's attention has not"),
        (nn.Linear(3, 3), "goes into a regard.nn.MultiHeadAttention: got Linear"),
    ],
)
def test_what_gpt2_cannot_hold_is_refused(module: Any, message: str) -> None:
    with pytest.raises(rg.RegardError, match=message):
        gpt2.state_dict(module)


def test_another_kind_of_module_is_refused() -> None:
    with pytest.raises(rg.KindError, match="takes transformers' GPT2Attention: got a Linear"):
        gpt2.from_transformers(nn.Linear(3, 3))
    without = layer(qkv_bias=False)
    with pytest.raises(rg.ArgumentError, match=r"'c_attn\.bias', for which .* make the module with qkv_bias=True"):
        gpt2.load_state_dict(without, gpt2.state_dict(layer()))

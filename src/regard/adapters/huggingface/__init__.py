"""Hugging Face transformers: ``model.set_attn_implementation("regard")`` after `register`."""

from regard.adapters.huggingface.registry import register as register

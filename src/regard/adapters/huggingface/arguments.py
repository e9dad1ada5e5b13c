"""Which of the keyword arguments that models hand to attention change its meaning, and which do not."""

from __future__ import annotations

from collections.abc import Mapping

HARMLESS = {
    "output_attentions": "read: lazy weights are handed out",
    "is_causal": "the mask says it; read where no mask comes",
    "sliding_window": "the mask says it; torch's and flash kernels need the number",
    "position_ids": "the mask has read them, and rotary positions are applied before attention",
    "position_embeddings": "rotary positions are applied before attention",
    "cache_position": "the mask says it",
    "cu_seq_lens_q": "packed sequences for flash kernels; eager takes them from the mask",
    "cu_seq_lens_k": "as cu_seq_lens_q",
    "cu_seqlens": "as cu_seq_lens_q",
    "max_length_q": "as cu_seq_lens_q",
    "max_length_k": "as cu_seq_lens_q",
    "grid_thw": "of the pictures around attention, which eager attention does without",
    "seq_idx": "packed sequences for state-space layers",
    "deterministic": "regard is deterministic on a CPU",
    "use_cache": "of the model around attention",
    "past_key_values": "of the model around attention; the keys and values have been through it",
    "output_hidden_states": "of the model around attention",
    "output_router_logits": "of the model around attention",
    "return_dict": "of the model around attention",
    "num_items_in_batch": "of the loss",
    "training": "the dropout's probability says it",
}
"""Arguments without effect on what eager attention computes, and why."""


def unknown(given: Mapping[str, object]) -> list[str]:
    """The names in ``given`` that have a value and are not known to be harmless."""
    return [name for name, value in given.items() if value is not None and name not in HARMLESS]

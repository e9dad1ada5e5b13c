"""What transformers describes as functions comes back as masks of the same meaning, and as intervals where it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, StaticCache, masking_utils

import regard as rg
from regard.adapters.huggingface.mask_tensor import MaskTensor

BATCH, TOKENS, WINDOW, CHUNK = 3, 13, 4, 5
EMBEDDINGS = torch.zeros(BATCH, TOKENS, 8)


def config(implementation: str, **options: Any) -> LlamaConfig:
    made = LlamaConfig(num_hidden_layers=2, sliding_window=WINDOW, attention_chunk_size=CHUNK, **options)
    made._attn_implementation = implementation
    return made


def padded(side: str, length: int = TOKENS) -> Tensor:
    valid = torch.ones(BATCH, length, dtype=torch.int64)
    valid[1, slice(0, 6) if side == "left" else slice(-6, None)] = 0
    valid[2, slice(0, 1) if side == "left" else slice(-1, None)] = 0
    return valid


POSITIONS = torch.cat([torch.arange(n) for n in (6, 4, 3)])[None].expand(BATCH, -1)
"""Three packed sequences, one of which is longer than a chunk and than the window."""
BLOCKS = torch.tensor([[-1, -1, 0, 0, 0, -1, -1, 1, 1, -1, -1, -1, -1]]).expand(BATCH, -1)
KINDS: dict[str, Callable[..., Any]] = {
    "causal": masking_utils.create_causal_mask,
    "window": masking_utils.create_sliding_window_causal_mask,
    "chunked": masking_utils.create_chunked_causal_mask,
}
GIVEN: dict[str, dict[str, Any]] = {
    "alone": {},
    "padded left": {"attention_mask": padded("left")},
    "padded right": {"attention_mask": padded("right")},
    "packed": {"position_ids": POSITIONS},
    "with blocks": {"block_sequence_ids": BLOCKS},
    "with padded blocks": {"block_sequence_ids": BLOCKS, "attention_mask": padded("left")},
}


def both(create: Callable[..., Any], **given: Any) -> tuple[MaskTensor, Tensor]:
    """The mask of regard, and the dense one of torch's attention."""
    arguments = {"inputs_embeds": EMBEDDINGS, "attention_mask": None, "past_key_values": None} | given
    made = create(config("regard"), **arguments)
    assert isinstance(made, MaskTensor)
    skip = "allow_is_bidirectional_skip" if "bidirectional" in create.__name__ else "allow_is_causal_skip"
    return made, create(config("sdpa"), **arguments, **{skip: False})


def check(made: MaskTensor, dense: Tensor) -> None:
    assert made.mask is not None
    assert "Dense" not in repr(made.mask)
    assert made.shape == dense.shape
    assert torch.equal(made.made() == 0, dense)
    at = made.geometry
    frame = made.mask.frame(at.q_len, at.k_len, made.q_positions, batch=at.batch)
    rows = made.mask.intervals(frame)
    assert rows is not None
    assert rows.narrow().per_row <= 2


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt(kind: str, given: str) -> None:
    check(*both(KINDS[kind], **GIVEN[given]))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["create_bidirectional_mask", "create_bidirectional_sliding_window_mask"])
def test_an_encoder(kind: str, side: str) -> None:
    check(*both(getattr(masking_utils, kind), attention_mask=padded(side)))


def test_cross_attention() -> None:
    create = masking_utils.create_bidirectional_mask
    check(*both(create, encoder_hidden_states=torch.zeros(BATCH, 9, 8), attention_mask=padded("right", 9)))


def test_an_encoder_without_padding_has_no_mask() -> None:
    for valid in (None, torch.ones(BATCH, TOKENS)):
        assert masking_utils.create_bidirectional_mask(config("regard"), EMBEDDINGS, valid) is None


def filled(cache: Any, tokens: int) -> Any:
    for layer in range(2):
        cache.update(*torch.zeros(2, BATCH, 32, tokens, 128), layer)
    return cache


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("past", [0, 2, 9, 16])
@pytest.mark.parametrize("tokens", [1, TOKENS])
@pytest.mark.parametrize("layers", ["full_attention", "sliding_attention", "chunked_attention"])
@pytest.mark.parametrize("side", [None, "left"])
def test_a_cache(layers: str, tokens: int, past: int, side: str | None, *, static: bool) -> None:
    kind = KINDS[{"full_attention": "causal", "sliding_attention": "window", "chunked_attention": "chunked"}[layers]]

    def cache(of: LlamaConfig) -> Any:
        made = StaticCache(of, 30) if static else DynamicCache(config=of)
        return filled(made, past) if past else made

    layered = config("sdpa", layer_types=[layers] * 2)
    valid = None if side is None else padded(side, past + tokens)
    check(
        *both(
            kind,
            inputs_embeds=EMBEDDINGS[:, :tokens],
            attention_mask=valid,
            past_key_values=cache(layered),
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_behind_a_cache(kind: str) -> None:
    layers = {"causal": "full_attention", "window": "sliding_attention", "chunked": "chunked_attention"}[kind]
    cache = filled(DynamicCache(config=config("sdpa", layer_types=[layers] * 2)), 9)
    check(
        *both(
            KINDS[kind],
            past_key_values=cache,
            block_sequence_ids=torch.cat([BLOCKS, BLOCKS.where(BLOCKS < 0, BLOCKS + 2)], 1),
        )
    )


def test_a_function_that_nobody_knows_becomes_dense_and_the_rest_stays_as_it_is() -> None:
    def odd(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q + k) % 3 == 0

    for how in ("or_mask_function", "and_mask_function"):
        made, dense = both(masking_utils.create_causal_mask, attention_mask=padded("left"), **{how: odd})
        assert torch.equal(made.made() == 0, dense)
        assert "Causal() " in repr(made.mask)
        assert "Padding" in repr(made.mask)
        assert "Dense" in repr(made.mask)


def test_values_of_a_prompt() -> None:
    windowed = both(KINDS["window"], attention_mask=padded("left"))[0].mask
    padding = rg.Padding.from_valid(padded("left").bool())
    assert windowed is not None
    assert windowed.equal(rg.SlidingWindow(WINDOW - 1, None) & rg.Causal() & padding)
    assert both(KINDS["chunked"])[0].mask == rg.Chunked(CHUNK) & rg.Causal()
    assert both(KINDS["causal"])[0].mask == rg.Causal()


def test_a_window_of_no_keys_hides_them_all() -> None:
    # What Qwen2's mixture of experts asks for, and does not use, where its windows are switched off.
    empty = config("regard")
    empty.sliding_window = 0
    made = KINDS["window"](empty, EMBEDDINGS, None, None)
    assert not bool((made == 0).any())

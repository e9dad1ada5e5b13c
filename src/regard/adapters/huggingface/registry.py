"""Telling transformers about regard."""

from __future__ import annotations

from regard._errors import MissingError
from regard.adapters.huggingface.attention import attend, make_mask

NAME = "regard"


def register() -> None:
    """Add attention and mask functions to transformers, under the name ``"regard"``.

    Then ``model.set_attn_implementation("regard")`` switches a model. Nothing else in transformers changes.

    Raises:
        MissingError: transformers is not installed.
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as error:
        raise MissingError("register needs transformers: pip install 'regard[hf]'.") from error
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, make_mask)

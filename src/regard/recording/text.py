"""A text through a model of Hugging Face transformers, recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from regard._errors import ArgumentError, MissingError
from regard.recording.capture import record
from regard.recording.recorded import Record


def record_text(model: str, text: str, *, max_tokens: int | None = None, progress: bool = False) -> Record:
    """Load a model, run it over ``text`` once, and keep its attention.

    Args:
        model: a folder, or a name that transformers finds in its own cache.
        text: what it reads.
        max_tokens: how many tokens of the text at most; default: all.
        progress: whether to say on stderr what was recorded so far.

    Raises:
        MissingError: transformers is not installed.
        ArgumentError: there is no such model, the text has no token, or a model that reads two texts.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingError("a model by its name needs transformers: pip install 'regard[hf]'.") from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        network: Any = AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError(
            f"a model is a folder that save_pretrained wrote, or a name that transformers knows: got {model!r} "
            f"({reason}). Is {str(Path(model).resolve())!r} the right folder?"
        ) from error
    if network.config.is_encoder_decoder:
        raise ArgumentError(
            f"a text is recorded in a model that reads one text: {type(network).__name__} is an encoder and a decoder. "
            "Use rg.record(model) around your own call."
        )
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :max_tokens]
    if ids.numel() == 0:
        raise ArgumentError("a text to be recorded has at least one token: got none.")
    with torch.no_grad(), record(network, tokenizer=tokenizer, progress=progress) as kept:
        network(input_ids=ids)
    kept.meta.setdefault("model", Path(model).name)
    return kept

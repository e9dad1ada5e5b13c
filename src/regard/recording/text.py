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
        model: a folder, a GGUF file, or a name that transformers finds in its own cache.
        text: what it reads.
        max_tokens: how many tokens of the text at most; default: all.
        progress: whether to say on stderr what was recorded so far.

    Raises:
        MissingError: transformers, or what it needs for this model, is not installed.
        ArgumentError: there is no such model, the text has no token, or a model that reads two texts.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingError("a model by its name needs transformers: pip install 'regard[hf]'.") from error
    path = Path(model)
    where, file = (str(path.parent), {"gguf_file": path.name}) if path.suffix == ".gguf" else (model, {})
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where, **file)
        network: Any = AutoModel.from_pretrained(where, **file).eval()
    except ImportError as error:
        raise MissingError(f"{path.name} needs more than transformers: {error}") from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError(
            f"a model is a folder that save_pretrained wrote, a .gguf file, or a name that transformers knows: got "
            f"{model!r} ({reason}). Is {str(path.resolve())!r} the right place?"
        ) from error
    if network.config.is_encoder_decoder:
        raise ArgumentError(
            f"a text is recorded in a model that reads one text: {type(network).__name__} is an encoder and a decoder. "
            "Use rg.record(model) around your own call."
        )
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :max_tokens]
    if ids.numel() == 0:
        raise ArgumentError("a text to be recorded has at least one token: got none.")
    name = path.resolve().name if path.exists() else model
    with torch.no_grad(), record(network, tokenizer=tokenizer, name=name, progress=progress) as kept:
        network(input_ids=ids)
    return kept

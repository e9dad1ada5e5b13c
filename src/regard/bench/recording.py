"""What recording costs: a model over a long text, with every layer and head recorded and without."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from regard.bench.memory import peak_extra, settled
from regard.bench.models import SMOLLM2, SMOLLM2_FILE, folder, smollm2
from regard.bench.timing import Pair, alternate
from regard.lm.corpus import embedded
from regard.recording import Record, record

TITLE = "a recorded forward pass of SmolLM2-135M over 8,192 tokens against an unrecorded one"
TARGET_TIME, TARGET_MEMORY = 1.05, 1.2
_FEW = 64
"""Tokens of a pass before everything, so that what a first call sets up is not counted as memory of one side."""


@dataclass(frozen=True)
class Recording:
    """A forward pass that is recorded against the same one that is not, the same model with the same kernels.

    Attributes:
        tokens: length of the text.
        layers: recorded layers.
        pair: seconds, recorded and not.
        kept: bytes of the queries and keys that a record keeps.
        grown: bytes that the process holds more with the record, once its forward pass is over and the allocator has
            given back what is free.
        peak: bytes at the recorded pass's peak beyond the unrecorded one's, both from an allocator without free memory.
    """

    tokens: int
    layers: int
    pair: Pair
    kept: int
    grown: int
    peak: int

    @property
    def share(self) -> float:
        """Memory that the record takes, as a multiple of its queries and keys."""
        return self.grown / self.kept

    def __str__(self) -> str:
        ours, theirs = self.pair.medians
        return (
            f"recording SmolLM2-135M over {self.tokens:,} tokens of Shakespeare, all {self.layers} layers and heads: "
            f"{ours:.2f} s against {theirs:.2f} s unrecorded, ratio {self.pair.ratio:.3f}, target {TARGET_TIME}; "
            f"the record takes {self.grown / 1e6:.0f} MB, {self.share:.2f} of its queries and keys "
            f"({self.kept / 1e6:.0f} MB), target {TARGET_MEMORY}; the peak was {self.peak / 1e6:.0f} MB higher"
        )

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        return {
            **asdict(self),
            "pair": [list(self.pair.ours), list(self.pair.theirs)],
            "ratio": self.pair.ratio,
            "share": self.share,
        }


def missing() -> str | None:
    """Why this cannot be measured here, or None."""
    for name in ("transformers", "gguf", SMOLLM2):
        if importlib.util.find_spec(name) is None:
            return f"it needs the package {name}"
    return None


def measure(runs: int, tokens: int = 8192) -> Recording:
    """SmolLM2 over a text."""
    return measured(smollm2()[0], _text(tokens), runs)


def measured(model: Any, ids: Tensor, runs: int) -> Recording:
    """Memory first, then times in turn, of a causal language model that computes attention by regard."""

    def plain(given: Tensor = ids) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(given, use_cache=False, logits_to_keep=1).logits
        return logits

    def recorded() -> Record:
        with record(model) as kept:
            plain()
        return kept

    held: list[Record] = []
    plain(ids[:, :_FEW])
    settled()
    unrecorded = peak_extra(plain)
    before = settled()
    peak = peak_extra(lambda: held.append(recorded()))
    grown = settled() - before
    layers = held.pop().layers
    kept = sum(layer.q.nbytes + layer.k.nbytes for layer in layers)
    count = len(layers)
    del layers
    pair = alternate(recorded, plain, runs, warm=True)
    return Recording(ids.shape[1], count, pair, kept, grown, peak - unrecorded)


def _text(tokens: int) -> Tensor:
    """So many tokens of Shakespeare."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder(SMOLLM2), gguf_file=SMOLLM2_FILE)
    ids: Tensor = tokenizer(embedded("shakespeare").text[: 8 * tokens], return_tensors="pt")["input_ids"]
    return ids[:, :tokens]

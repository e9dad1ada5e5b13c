"""AdamW with decay on matrices only, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from regard.lm.checkpoint import check_shapes
from regard.lm.model import LanguageModel
from regard.lm.settings import Training

_BETAS = (0.9, 0.99)


def make_optimizer(model: LanguageModel, training: Training) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over all parameters; norms and biases do not decay."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=_BETAS, fused=fused)


def optimizer_tensors(model: LanguageModel, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The state as ``{"exp_avg.blocks.0…": tensor, …}``; empty before the first step."""
    return {
        f"{kind}.{name}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    model: LanguageModel, optimizer: torch.optim.AdamW, saved: Mapping[str, Tensor], file: Path
) -> None:
    """Set the state to ``saved``.

    Raises:
        CheckpointError: tensors of other names or shapes than the model's.
    """
    wanted: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        wanted |= {f"exp_avg.{name}": parameter, f"exp_avg_sq.{name}": parameter, f"step.{name}": torch.zeros(())}
    if saved:
        check_shapes(wanted, saved, file)
    for name, parameter in model.named_parameters() if saved else ():
        optimizer.state[parameter] = {
            kind: saved[f"{kind}.{name}"].clone() for kind in ("step", "exp_avg", "exp_avg_sq")
        }

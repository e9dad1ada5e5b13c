"""Checkpoints that are whole or not there: one folder a step, written aside, flushed to the disk, then renamed.

A run's folder holds ``step-…/model.safetensors``, ``optimizer.safetensors`` and ``run.json``. A process that dies
while it writes or removes leaves a folder named ``.aside-…``, which nothing reads and the next save removes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from regard._errors import CheckpointError, RegardError
from regard.lm.model import LanguageModel, ModelConfig
from regard.lm.settings import Evaluation, Training
from regard.lm.tokenizer import Tokenizer, restore

_KEPT = 2
_FORMAT = 1


@dataclass
class Run:
    """A training so far: what it is and where it stands. The weights are in its model.

    Attributes:
        config: the model's sizes.
        training: the settings.
        tokenizer: between text and ids.
        source: where the text came from.
        digest: SHA-256 of the text.
        step: steps done.
        history: the looks at the loss so far.
        losses: of the steps since the last look.
    """

    config: ModelConfig
    training: Training
    tokenizer: Tokenizer
    source: str
    digest: str
    step: int = 0
    history: list[Evaluation] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def to_json(self) -> str:
        """Everything but the weights."""
        return json.dumps(
            {
                "format": _FORMAT,
                "step": self.step,
                "model": dataclasses.asdict(self.config),
                "training": dataclasses.asdict(self.training),
                "text": {"source": self.source, "sha256": self.digest},
                "history": [dataclasses.asdict(one) for one in self.history],
                "losses": self.losses,
                "tokenizer": self.tokenizer.state(),
            },
            indent=1,
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Run:
        """The run whose `to_json` this is."""
        saved = json.loads(text)
        return cls(
            ModelConfig(**saved["model"]),
            Training(**saved["training"]),
            restore(saved["tokenizer"]),
            saved["text"]["source"],
            saved["text"]["sha256"],
            saved["step"],
            [Evaluation(**one) for one in saved["history"]],
            list(saved["losses"]),
        )


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted(folder.glob("step-*"))


def begin(folder: Path) -> None:
    """Make the folder of a new run, and see that it can be written into before anything is computed.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CheckpointError(f"no run can be written to {folder}: {error.strerror}. Choose another folder.") from None


def save(folder: Path, run: Run, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> Path:
    """Write the checkpoint of ``run.step`` and keep the two last ones.

    Raises:
        CheckpointError: it cannot be written, as when the disk is full; those before it are as they were.
    """
    final = folder / f"step-{run.step:08d}"
    aside = folder / f".aside-{run.step:08d}-{os.getpid()}"
    if final.exists():
        return final
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".aside-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        aside.mkdir()
        _written(aside / "model.safetensors", lambda path: save_file(_contiguous(model), path))
        _written(aside / "optimizer.safetensors", lambda path: save_file(_contiguous(optimizer), path))
        _written(aside / "run.json", lambda path: path.write_text(run.to_json(), encoding="utf-8"))
        _flush(aside)
        aside.rename(final)
        _flush(folder)
        for old in checkpoints(folder)[:-_KEPT]:
            shutil.rmtree(old.rename(folder / f".aside-{old.name}"))
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        kept = [path.name for path in checkpoints(folder)] if folder.is_dir() else []
        whole = f"{kept[-1]} is whole; make room and go on with --resume" if kept else "there is none before it"
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"the checkpoint of step {run.step} cannot be written to {folder}: {reason}; {whole}."
        ) from None
    return final


def load_run(path: str | Path, device: torch.device | str = "cpu") -> tuple[Run, LanguageModel]:
    """The last checkpoint of a run's folder, or a ``step-…`` folder itself: the run and its model, in eval mode.

    Raises:
        CheckpointError: there is none, it cannot be read, or its weights have other shapes than its model.
    """
    run, model, _ = load(path, device)
    return run, model


def load(path: str | Path, device: torch.device | str = "cpu") -> tuple[Run, LanguageModel, Path]:
    """As `load_run`, and the folder that was read."""
    folder = _latest(Path(path))
    try:
        run = Run.from_json((folder / "run.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors", str(device))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, RegardError):
            raise
        raise CheckpointError(
            f"the checkpoint {folder} cannot be read: {error}. Take an older one beside it."
        ) from None
    with torch.device("meta"):
        model = LanguageModel(run.config)
    check_shapes(model.state_dict(), weights, folder / "model.safetensors")
    # Cloned: training writes into them, and they may be the file's own memory.
    model.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return run, model.requires_grad_().eval(), folder


def load_optimizer(folder: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors of the optimizer in a checkpoint.

    Raises:
        CheckpointError: they cannot be read.
    """
    try:
        return load_file(folder / "optimizer.safetensors", str(device))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the optimizer of {folder} cannot be read: {error}.") from None


def check_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], file: Path) -> None:
    """Raise unless both have the same names and shapes.

    Raises:
        CheckpointError: the first difference, by name.
    """
    for name in sorted({*wanted, *found}):
        want, got = (tuple(side[name].shape) if name in side else "no such tensor" for side in (wanted, found))
        if want != got:
            raise CheckpointError(f"{file} is of another shape than its model: {name} must be {want}, got {got}.")


def _latest(path: Path) -> Path:
    if (path / "run.json").is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"there is no folder {path}. `regard train --out {path}` makes one.")
    found = checkpoints(path)
    if not found:
        raise CheckpointError(f"the folder {path} holds no checkpoint (step-…). `regard train --out {path}` makes one.")
    return found[-1]


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _written(path: Path, write: Callable[[Path], object]) -> None:
    write(path)
    _flush(path)


def _flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

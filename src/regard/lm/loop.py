"""The training loop.

A step is a function of the weights, the optimizer's state and its number: which windows it gets and what dropout draws
follow from the seed and the number. So a run that goes on from a checkpoint does what it would have done anyway, to the
last bit on the same machine, threads and processes.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from regard._errors import ArgumentError
from regard.lm import checkpoint
from regard.lm.corpus import Text
from regard.lm.data import Corpus
from regard.lm.model import LanguageModel, ModelConfig
from regard.lm.optimizer import make_optimizer, optimizer_tensors, restore_optimizer
from regard.lm.processes import processes
from regard.lm.settings import Evaluation, Training
from regard.lm.tokenizer import Tokenizer


class Watcher:
    """What a training tells as it goes; every method does nothing until it is overridden."""

    def begun(self, run: checkpoint.Run, model: LanguageModel) -> None:
        """Training starts, or goes on from ``run.step``."""

    def stepped(self, run: checkpoint.Run, loss: float, tokens: int) -> None:
        """A step is done: its loss in nats a token, and how many tokens it had."""

    def evaluated(self, run: checkpoint.Run, model: LanguageModel, seen: Evaluation) -> None:
        """The held-out text was looked at; the model is in eval mode."""

    def saved(self, run: checkpoint.Run, folder: Path) -> None:
        """A checkpoint was written."""


@dataclass(frozen=True)
class Where:
    """How a training is carried out: nothing here decides what is computed, but for rounding.

    Attributes:
        folder: takes the checkpoints.
        device: such as ``"cpu"`` or ``"cuda"``.
        compile: whether `torch.compile` compiles the model.
        save_every: steps between two checkpoints; the last step always has one.
        watcher: is told what happens.
        stop: asked after each step; True saves and ends.
    """

    folder: Path
    device: str = "cpu"
    compile: bool = False
    save_every: int = 500
    watcher: Watcher = field(default_factory=Watcher)
    stop: Callable[[], bool] = lambda: False


def train(text: Text, tokenizer: Tokenizer, config: ModelConfig, training: Training, where: Where) -> checkpoint.Run:
    """Train a new model on ``text``; checkpoints go to ``where.folder``.

    Under ``torchrun`` or ``accelerate launch`` each process takes its part of every batch
    (`torch.nn.parallel.DistributedDataParallel`), and the first one saves and tells.

    Raises:
        ArgumentError: a text shorter than a context, a folder that holds a run, a batch that the processes do not
            divide, a device that is not there.
        CheckpointError: the folder or a checkpoint cannot be written.
    """
    if checkpoint.checkpoints(where.folder):
        raise ArgumentError(
            f"{where.folder} already holds a run. Go on with it by --resume, or choose another folder with --out."
        )
    checkpoint.begin(where.folder)
    run = checkpoint.Run(config.replace(vocabulary=tokenizer.size), training, tokenizer, text.source, text.digest)
    torch.manual_seed(training.seed)
    model = LanguageModel(run.config).to(device_of(where.device))
    return _loop(text, run, model, make_optimizer(model, training), where)


def resume(text: Text, where: Where) -> checkpoint.Run:
    """Go on with the last checkpoint in ``where.folder``.

    Raises:
        ArgumentError: another text than the run's.
        CheckpointError: no checkpoint, or one that cannot be read.
    """
    device = device_of(where.device)
    run, model, folder = checkpoint.load(where.folder, device)
    if run.digest != text.digest:
        raise ArgumentError(
            f"{where.folder} was trained on {run.source}, and this text is another (its SHA-256 differs). Give the "
            "same text, or train anew with another --out."
        )
    optimizer = make_optimizer(model, run.training)
    restore_optimizer(model, optimizer, checkpoint.load_optimizer(folder, device), folder / "optimizer.safetensors")
    return _loop(text, run, model, optimizer, where)


def device_of(name: str) -> torch.device:
    """The device called ``name``; under torchrun, a CUDA device of this process's own.

    Raises:
        ArgumentError: no such device here.
    """
    try:
        device = torch.device(name)
        if device.type == "cuda" and ":" not in name:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ArgumentError(
            f"the device {name!r} is not usable here: {reason}. Leave --device out for the CPU."
        ) from None
    return device


class _Loss(nn.Module):
    """Logits and loss in one ``forward``, which is what DistributedDataParallel and `torch.compile` wrap."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        return self.model.loss(ids, targets)


def _loop(
    text: Text, run: checkpoint.Run, model: LanguageModel, optimizer: torch.optim.AdamW, where: Where
) -> checkpoint.Run:
    training, context = run.training, run.config.context_length
    corpus = Corpus.of(text, run.tokenizer, held_out=training.held_out, context=context)
    with processes(where.device) as (rank, world):
        if training.batch % world:
            raise ArgumentError(
                f"the processes share a batch evenly: got batch={training.batch} for {world} processes."
            )
        device, first = next(model.parameters()).device, rank == 0
        step_loss: nn.Module = _Loss(model)
        if where.compile:
            step_loss.compile()
        if world > 1:
            step_loss = nn.parallel.DistributedDataParallel(step_loss)
        if first:
            where.watcher.begun(run, model)
        while run.step < training.steps:
            run.losses.append(_step(step_loss, optimizer, corpus, run, device, rank, world))
            run.step += 1
            done = run.step == training.steps
            stopping = _any(where.stop(), device, world)
            if first:
                tokens = training.batch * training.accumulate * context
                where.watcher.stepped(run, run.losses[-1], tokens)
                if run.step % training.evaluate_every == 0 or done:
                    _look(run, model, corpus, device, where.watcher)
                if run.step % where.save_every == 0 or done or stopping:
                    folder = checkpoint.save(where.folder, run, model.state_dict(), optimizer_tensors(model, optimizer))
                    where.watcher.saved(run, folder)
            if stopping:
                break
        del step_loss  # before the group of processes ends
    return run


def _step(
    step_loss: nn.Module,
    optimizer: torch.optim.AdamW,
    corpus: Corpus,
    run: checkpoint.Run,
    device: torch.device,
    rank: int,
    world: int,
) -> float:
    """One optimizer step; its loss in nats a token, over all processes."""
    training, step = run.training, run.step
    step_loss.train()
    torch.manual_seed(int(np.random.Philox(key=[training.seed, step * world + rank]).random_raw(1)[0] >> 1))
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate_at(step)
    ids, targets = corpus.batch(training.seed, step, training.batch * training.accumulate, run.config.context_length)
    share = training.batch // world
    total = torch.zeros((), device=device)
    for n in range(training.accumulate):
        rows = slice(n * training.batch + rank * share, n * training.batch + (rank + 1) * share)
        last = n == training.accumulate - 1
        alone = nullcontext() if last or world == 1 else step_loss.no_sync()  # type: ignore[operator]
        with alone:
            with torch.autocast(device.type, torch.bfloat16, enabled=training.bf16):
                loss = step_loss(ids[rows].to(device), targets[rows].to(device)) / training.accumulate
            loss.backward()
        total += loss.detach()
    nn.utils.clip_grad_norm_(step_loss.parameters(), training.clip)
    optimizer.step()
    optimizer.zero_grad()
    if world > 1:
        dist.all_reduce(total)
    return float(total) / world


@torch.no_grad()
def held_out_loss(run: checkpoint.Run, model: LanguageModel, corpus: Corpus, tokens: int) -> float:
    """Nats a token on about ``tokens`` tokens of the held-out text, in contexts of full length."""
    device = next(model.parameters()).device
    ids, targets = corpus.held_out_windows(tokens, run.config.context_length)
    model.eval()
    losses = []
    for rows in torch.arange(len(ids)).split(run.training.batch):
        with torch.autocast(device.type, torch.bfloat16, enabled=run.training.bf16):
            loss = model.loss(ids[rows].to(device), targets[rows].to(device))
        losses += [float(loss)] * len(rows)
    return statistics.fmean(losses)


def _look(run: checkpoint.Run, model: LanguageModel, corpus: Corpus, device: torch.device, watcher: Watcher) -> None:
    held_out = held_out_loss(run, model, corpus, run.training.evaluate_tokens)
    seen = Evaluation(run.step, statistics.fmean(run.losses), held_out, held_out / corpus.characters_per_token)
    run.history.append(seen)
    run.losses.clear()
    watcher.evaluated(run, model, seen)


def _any(here: bool, device: torch.device, world: int) -> bool:  # noqa: FBT001
    """Whether any process says so."""
    if world == 1:
        return here
    said = torch.tensor(float(here), device=device)
    dist.all_reduce(said)
    return bool(said)

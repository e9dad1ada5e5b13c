"""One small trained run for the tests that only read it."""

from pathlib import Path

import pytest
import torch

from regard import lm

TEXT = lm.Text("the cat sat on the mat and the dog lay on the log; " * 40, "rhyme.txt")
CONFIG = lm.ModelConfig(vocabulary=1, context_length=11, width=24, layers=2, heads=3, dropout=0.1)
TRAINING = lm.Training(steps=7, batch=6, accumulate=2, warmup=2, evaluate_every=3, evaluate_tokens=110, seed=5)


def trained(folder: Path, *, text: lm.Text = TEXT, stop_at: int | None = None, save_every: int = 100) -> lm.Run:
    """Train on ``text``; ``stop_at`` ends it after that step as Ctrl-C does."""
    steps = iter(range(1, 1000))
    stop = (lambda: False) if stop_at is None else (lambda: next(steps) == stop_at)
    where = lm.Where(folder, save_every=save_every, stop=stop)
    return lm.train(text, lm.Characters.of(text.text), CONFIG, TRAINING, where)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, lm.Run]:
    """A training without an interruption."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    torch.manual_seed(99)
    return folder, trained(folder)

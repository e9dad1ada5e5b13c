"""`regard train`, killed at random moments and started again: never an unreadable checkpoint, and the same weights."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from regard import lm
from regard.lm import checkpoint

KILLS, STEPS = 4, 400
TINY = ("--preset", "toy", "--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch", "4")
REST = ("--steps", str(STEPS), "--evaluate-every", str(STEPS), "--sample-every", "0")


def arguments(text: Path, out: Path) -> list[str]:
    return ["train", str(text), "--out", str(out), *TINY, *REST]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    last = checkpoint.checkpoints(folder)[-1]
    return {
        name: tensor
        for file in ("model", "optimizer")
        for name, tensor in load_file(last / f"{file}.safetensors").items()
    }


def test_kills_at_random_times_change_nothing(run: Callable[..., Any], tmp_path: Path) -> None:
    text, killed, whole = tmp_path / "rhyme.txt", tmp_path / "killed", tmp_path / "whole"
    text.write_text("the cat sat on the mat and the dog lay on the log\n" * 40, encoding="utf-8")
    draw, reached = random.Random(0), [0]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    for _ in range(KILLS):
        again = ["--resume"] if checkpoint.checkpoints(killed) else []
        command = [sys.executable, "-m", "regard", *arguments(text, killed), "--save-every", "2", *again]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as child:
            try:
                assert child.stdout is not None
                heard = [child.stdout.readline()]
                while not heard[-1].startswith(b"saved"):
                    heard.append(child.stdout.readline())
                    assert heard[-1], b"".join(heard).decode()
                time.sleep(draw.uniform(0.0, 0.1))
            finally:
                child.kill()
        for found in checkpoint.checkpoints(killed):
            checkpoint.load_optimizer(found)
            assert found.name == f"step-{lm.load_run(found)[0].step:08d}"
        reached.append(lm.load_run(killed)[0].step)
        assert reached[-1] > reached[-2], "it went on from where it was"
    assert reached[-1] < STEPS
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(*arguments(text, killed), "--resume").status == 0
        assert run(*arguments(text, whole)).status == 0
    finally:
        torch.set_num_threads(before)
    want, got = weights(whole), weights(killed)
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name

"""Checkpoints are whole or not there, and say what is wrong with them."""

import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.lm.conftest import TEXT, trained

from regard import lm
from regard._errors import CheckpointError
from regard.lm import checkpoint

FORKED = multiprocessing.get_context("fork")


def saves_for_ever(folder: Path, said: Connection, largest_file: int | None = None) -> None:
    """Save step after step, with weights that all equal the step, and tell of each; a kill or an error ends it."""
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    run, model, last = checkpoint.load(folder)
    optimizer = checkpoint.load_optimizer(last)
    while True:
        run.step += 1
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.fill_(run.step)
        checkpoint.save(folder, run, model.state_dict(), optimizer)
        said.send(run.step)


def saves_until_refused(folder: Path, said: Connection) -> None:
    try:
        saves_for_ever(folder, said, largest_file=9999)
    except CheckpointError as error:
        said.send(str(error))


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, whole_run: tuple[Path, lm.Run]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole_run[0], folder)
    draw, steps = random.Random(0), [7]
    for _ in range(25):
        heard, said = FORKED.Pipe(duplex=False)
        child = FORKED.Process(target=saves_for_ever, args=(folder, said))
        child.start()
        first = heard.recv()
        assert first == steps[-1] + 1
        time.sleep(draw.uniform(0.0, 0.1))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        for found in folder.glob("step-*"):
            run, model = lm.load_run(found)
            assert found.name == f"step-{run.step:08d}"
            if run.step > 7:
                assert all((tensor == run.step).all() for tensor in model.state_dict().values())
            checkpoint.load_optimizer(found)
        steps.append(lm.load_run(folder)[0].step)
        assert steps[-1] >= first


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "run" / ".aside-00000003-1").mkdir(parents=True)
    (tmp_path / "run" / ".aside-loss.png").write_bytes(b"half")
    trained(tmp_path / "run", save_every=2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["step-00000006", "step-00000007"]


def test_a_full_disk_is_a_sentence_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "run", stop_at=2)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(
        CheckpointError, match=r"step 7 cannot be written to .*run: No space left on device; step-00000002"
    ):
        lm.resume(TEXT, lm.Where(tmp_path / "run"))
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["step-00000002"]
    assert lm.resume(TEXT, lm.Where(tmp_path / "run")).step == 7


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        CheckpointError, match=r"no run can be written to .*run: Not a directory. Choose another folder"
    ):
        trained(tmp_path / "file" / "run", stop_at=1)


def test_a_file_that_may_not_grow_is_a_sentence(tmp_path: Path, whole_run: tuple[Path, lm.Run]) -> None:
    """The operating system itself refuses to write, in the middle of the weights."""
    folder = tmp_path / "run"
    shutil.copytree(whole_run[0], folder)
    heard, said = FORKED.Pipe(duplex=False)
    child = FORKED.Process(target=saves_until_refused, args=(folder, said))
    child.start()
    child.join()
    sentence = heard.recv()
    assert sentence.startswith("the checkpoint of step 8 cannot be written")
    assert "step-00000007 is whole" in sentence
    assert lm.load_run(folder)[0].step == 7


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        lm.load_run(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        lm.load_run(tmp_path)


def test_a_checkpoint_of_another_shape(tmp_path: Path, whole_run: tuple[Path, lm.Run]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole_run[0], folder)
    last = sorted(folder.glob("step-*"))[-1]
    weights = load_file(last / "model.safetensors")
    save_file({**weights, "norm.weight": torch.ones(5)}, last / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"norm.weight must be \(24,\), got \(5,\)"):
        lm.load_run(folder)
    save_file({name: tensor for name, tensor in weights.items() if name != "norm.bias"}, last / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"norm.bias must be \(24,\), got no such tensor"):
        lm.load_run(folder)
    save_file(weights, last / "model.safetensors")
    save_file({"exp_avg.norm.bias": torch.ones(5)}, last / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors is of another shape"):
        lm.resume(TEXT, lm.Where(folder))


@pytest.mark.parametrize("file", ["model.safetensors", "run.json", "optimizer.safetensors"])
def test_a_damaged_file(tmp_path: Path, whole_run: tuple[Path, lm.Run], file: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole_run[0], folder)
    damaged = sorted(folder.glob("step-*"))[-1] / file
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        lm.resume(TEXT, lm.Where(folder))


def test_everything_about_the_run_is_in_json(whole_run: tuple[Path, lm.Run]) -> None:
    folder, run = whole_run
    saved = json.loads((sorted(folder.glob("step-*"))[-1] / "run.json").read_text(encoding="utf-8"))
    assert saved["text"] == {"source": "rhyme.txt", "sha256": TEXT.digest}
    assert saved["model"]["vocabulary"] == len(set(TEXT.text))
    assert [one["step"] for one in saved["history"]] == [3, 6, 7]
    assert lm.Run.from_json(run.to_json()).history == run.history

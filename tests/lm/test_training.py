"""Training: going on is as if nothing had happened, and what it tells is what it did."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.lm.conftest import CONFIG, TEXT, TRAINING, trained

import regard as rg
from regard import lm
from regard.lm.data import Corpus
from regard.lm.loop import held_out_loss
from regard.lm.optimizer import make_optimizer


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    last = sorted(folder.glob("step-*"))[-1]
    return {
        f"{file}/{name}": tensor
        for file in ("model", "optimizer")
        for name, tensor in load_file(last / f"{file}.safetensors").items()
    }


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_going_on_is_as_if_nothing_had_happened(tmp_path: Path, whole_run: tuple[Path, lm.Run], stop_at: int) -> None:
    folder, whole = whole_run
    stopped = trained(tmp_path / "run", stop_at=stop_at)
    assert stopped.step == stop_at
    torch.manual_seed(1234)
    torch.rand(7)
    resumed = lm.resume(TEXT, lm.Where(tmp_path / "run"))
    assert (resumed.step, resumed.history, resumed.losses) == (whole.step, whole.history, whole.losses)
    want, got = tensors(folder), tensors(tmp_path / "run")
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), name


def test_it_learns(tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, steps=60, accumulate=1, evaluate_every=20, learning_rate=1e-2)
    run = lm.train(TEXT, lm.Characters.of(TEXT.text), CONFIG, training, lm.Where(tmp_path / "run"))
    losses = [seen.held_out for seen in run.history]
    assert losses[-1] < 1.0 < losses[0]


def test_the_held_out_loss_is_that_of_the_saved_model(whole_run: tuple[Path, lm.Run]) -> None:
    run, model = lm.load_run(whole_run[0])
    corpus = Corpus.of(TEXT, run.tokenizer, held_out=TRAINING.held_out, context=CONFIG.context_length)
    ids, targets = corpus.held_out_windows(TRAINING.evaluate_tokens, CONFIG.context_length)
    assert len(ids) > TRAINING.batch
    nats = -model(ids).detach().log_softmax(-1).gather(-1, targets[..., None])
    assert run.history[-1].held_out == pytest.approx(float(nats.mean()), rel=1e-5)
    assert held_out_loss(run, model, corpus, 22) != pytest.approx(float(nats.mean()), rel=1e-3)


def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    still = CONFIG.replace(dropout=0.0)
    together = dataclasses.replace(TRAINING, batch=12, accumulate=1)
    runs = {}
    for name, training in (("parts", TRAINING), ("whole", together)):
        lm.train(TEXT, lm.Characters.of(TEXT.text), still, training, lm.Where(tmp_path / name))
        runs[name] = tensors(tmp_path / name)
    for name, tensor in runs["whole"].items():
        torch.testing.assert_close(runs["parts"][name], tensor, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_rises_and_falls_along_a_cosine() -> None:
    training = lm.Training(steps=110, warmup=10, learning_rate=1.0, final_share=0.2)
    rates = [training.learning_rate_at(step) for step in range(111)]
    assert rates[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.6)
    assert rates[110] == pytest.approx(0.2)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_only_matrices_decay() -> None:
    model = lm.LanguageModel(CONFIG)
    decays, rest = make_optimizer(model, TRAINING).param_groups
    assert decays["weight_decay"] == 0.1
    assert all(p.ndim == 2 for p in decays["params"])
    assert rest["weight_decay"] == 0
    assert len(decays["params"]) + len(rest["params"]) == len(list(model.parameters()))


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    training = dataclasses.replace(TRAINING, bf16=True, steps=2)
    lm.train(TEXT, lm.Characters.of(TEXT.text), CONFIG, training, lm.Where(tmp_path / "run"))
    run, model = lm.load_run(tmp_path / "run")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert run.training.bf16


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"steps": 0}, rg.ArgumentError, "steps must be at least 1: got 0"),
        ({"held_out": 0.9}, rg.ArgumentError, "held_out must be from 0 to 0.5: got 0.9"),
        ({"learning_rate": float("nan")}, rg.ArgumentError, "learning_rate must be from 0 to inf: got nan"),
        ({"clip": "1"}, rg.KindError, "clip must be a number: got '1'"),
    ],
)
def test_settings_outside_their_domain(changes: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        dataclasses.replace(TRAINING, **changes)  # type: ignore[arg-type]


def test_another_text_or_folder_is_refused(tmp_path: Path, whole_run: tuple[Path, lm.Run]) -> None:
    folder, _ = whole_run
    with pytest.raises(rg.ArgumentError, match=r"was trained on rhyme.txt, and this text is another"):
        lm.resume(lm.Text(TEXT.text + "!", "rhyme.txt"), lm.Where(folder))
    with pytest.raises(rg.ArgumentError, match="already holds a run"):
        trained(folder)
    with pytest.raises(rg.ArgumentError, match="device 'nowhere' is not usable here"):
        lm.train(TEXT, lm.Characters.of("a"), CONFIG, TRAINING, lm.Where(tmp_path, device="nowhere"))


SHARED = """
import faulthandler, gc, os, sys, time
from pathlib import Path
import torch
import torch.distributed as dist
from regard import lm
from tests.lm.conftest import CONFIG, TEXT, TRAINING
faulthandler.dump_traceback_later(50, exit=True)
torch.set_num_threads(1)
whole, parts = (Path(folder) for folder in sys.argv[1:])
end = dist.destroy_process_group
def checked():
    # Whoever still held the group would free it under Python's lock and wait for a thread that waits for that lock.
    assert not [x for x in gc.get_objects() if type(x) is torch.nn.parallel.DistributedDataParallel]
    end()
dist.destroy_process_group = checked
given = TEXT, lm.Characters.of(TEXT.text), CONFIG.replace(dropout=0.0), TRAINING
lm.train(*given, lm.Where(whole))
asked = []
last = os.environ["RANK"] == "1"
lm.train(*given, lm.Where(parts, stop=lambda: asked.append(0) or last and len(asked) == 3))
while not list(parts.glob("step-*")):
    time.sleep(0.01)
assert lm.resume(TEXT, lm.Where(parts)).step == TRAINING.steps
"""


def test_two_processes_of_torchrun_train_as_one_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(SHARED)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", *launcher, *(str(tmp_path / name) for name in ("shared.py", "two", "resumed"))],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as launched:
        try:
            said, _ = launched.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(launched.pid, signal.SIGKILL)
            raise
    assert launched.returncode == 0, said
    lm.train(TEXT, lm.Characters.of(TEXT.text), CONFIG.replace(dropout=0.0), TRAINING, lm.Where(tmp_path / "one"))
    want, got = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=1e-5)
    histories = [
        json.loads((sorted((tmp_path / name).glob("step-*"))[-1] / "run.json").read_text())["history"]
        for name in ("one", "two")
    ]
    for one, two in zip(*histories, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    resumed = tensors(tmp_path / "resumed")
    assert resumed.keys() == got.keys()
    for name, tensor in got.items():
        assert torch.equal(resumed[name], tensor), name

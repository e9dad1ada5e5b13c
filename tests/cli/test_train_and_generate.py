"""`regard train` and `regard generate`: what they print, what they leave, and what they refuse."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regard import lm

Run = Callable[..., Any]
TINY = ("--preset", "toy", "--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch", "4")


@pytest.fixture
def rhyme(tmp_path: Path) -> Path:
    file = tmp_path / "rhyme.txt"
    file.write_text("the cat sat on the mat and the dog lay on the log\n" * 40, encoding="utf-8")
    return file


def test_from_text_to_text(run: Run, rhyme: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("--steps", "6", "--evaluate-every", "3", "--sample-every", "3", "--save-every", "3")
    status, shown, err = run("train", str(rhyme), "--out", str(out), *TINY, *settings, width=200)
    assert (status, err) == (0, "")
    assert f"everything goes to {out}" in shown
    assert "step      3   training " in shown
    assert " tokens/s" in shown
    samples = [line for line in shown.splitlines() if line.startswith("    ")]
    assert samples
    assert f"try next: regard generate {out} 'the cat'" in shown
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    made = run("generate", str(out), "the dog", "--count", "30", "--seed", "3", "--top-k", "5", "--top-p", "0.9")
    assert made.status == 0
    assert made.out.startswith("the dog")
    assert len(made.out) == len("the dog") + 30 + 1
    assert (
        made.out
        == run("generate", str(out), "the dog", "--count", "30", "--seed", "3", "--top-k", "5", "--top-p", "0.9").out
    )


def test_resuming_from_the_command_line(run: Run, rhyme: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    base = ("train", str(rhyme), "--out", out)
    tokens = ("--tokens", "bpe", "--vocabulary", "280", "--sample-every", "0")
    status, shown, _ = run(*base, *TINY, "--steps", "4", *tokens)
    assert status == 0
    assert "step      4" in shown
    assert not [line for line in shown.splitlines() if line.startswith("    ")], "a sample, and none was asked for"
    status, shown, _ = run(*base, "--resume", "--steps", "4")
    assert status == 0
    assert "going on from step 4" in shown
    refused = run(*base, "--resume", "--width", "32", "--tokens", "characters")
    assert refused.status == 2
    assert "has width 16, not 32; tokens bpe, not characters. Leave them out" in refused.err
    assert "already holds a run" in run(*base, *TINY).err


def test_ctrl_c_saves(rhyme: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "regard", "train", str(rhyme), "--out", str(out), *TINY]
    settings = ["--steps", "1000000", "--save-every", "1000000", "--evaluate-every", "20", "--sample-every", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    while not child.stdout.readline().startswith(b"step"):
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    shown, err = child.communicate(timeout=120)
    assert child.returncode == 130
    assert err == b""
    assert b"with --resume goes on" in shown
    assert lm.load_run(out)[0].step >= 20


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("", (), "rhyme.txt is empty"),
        (
            "too short",
            (),
            "the training part of rhyme.txt (90%) must have at least context_length + 1 = 129 tokens: it has 8.",
        ),
        ("x" * 999, ("--preset", "huge"), "a preset is one of toy, small, medium, gpt2-small: got 'huge'"),
        ("x" * 999, ("--corpus", "tang"), "give files or --corpus, not both"),
        ("x" * 999, ("--steps", "0"), "steps must be at least 1: got 0."),
        ("x" * 999, ("--vocabulary", "300"), "it goes with --tokens bpe"),
        ("x" * 999, ("--backend", "fastest", "--context", "8"), "backend must be one of "),
        ("x" * 999, ("--resume",), "there is no folder"),
        ("x" * 999, ("--device", "nowhere"), "the device 'nowhere' is not usable here"),
    ],
)
def test_what_cannot_be_trained(
    run: Run, tmp_path: Path, rhyme: Path, text: str, arguments: tuple[str, ...], sentence: str
) -> None:
    rhyme.write_text(text)
    status, _, err = run("train", str(rhyme), "--out", str(tmp_path / "run"), *arguments)
    assert status == 2
    assert err.startswith("regard: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_bad_byte_is_named(run: Run, rhyme: Path) -> None:
    rhyme.write_bytes(b"abc\xffdef")
    status, _, err = run("train", str(rhyme))
    assert status == 2
    assert "the byte 0xFF at offset 3 (line 1) is not" in err


def test_generating_from_nothing(run: Run, tmp_path: Path) -> None:
    status, _, err = run("generate", str(tmp_path / "none"))
    assert status == 2
    assert "there is no folder" in err
    assert "holds no checkpoint" in run("generate", str(tmp_path)).err
    assert "corpora are shakespeare and tang" in run("train", "--corpus", "bible").err

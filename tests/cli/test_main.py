"""The entry point: help, versions, and command lines that cannot be followed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import regard
from regard.cli import main as entry

Run = Callable[..., Any]


def fresh(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "regard", *arguments]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"regard {regard.__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command_and_gives_examples(run: Run, arguments: tuple[str, ...]) -> None:
    status, out, _ = run(*arguments)
    assert status == 0
    for name in ("demo", "tour", "train", "generate", "recall", "explain", "bench", "info"):
        assert f"\n    {name} " in out
    assert '--mask "Causal() & SlidingWindow(255)"' in out


@pytest.mark.parametrize("command", ["demo", "tour", "train", "generate", "recall", "explain", "info", "bench"])
def test_every_command_has_help(run: Run, command: str) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    assert out.startswith(f"usage: regard {command}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tuor",), "there is no command 'tuor' (did you mean 'tour'?); the commands are demo, "),
        (("dance",), "there is no command 'dance'; the commands are demo, "),
        (("--nothing",), "unrecognized arguments: --nothing"),
        (("tour", "--section", "99"), "the tour has sections 1 to 14: got --section 99."),
        (("tour", "--section", "0"), "the tour has sections 1 to 14: got --section 0."),
        (("tour", "--section", "two"), "argument --section: invalid int value: 'two'."),
        (("tour", "--text", " \t"), "--text needs at least one word: got ' \\t'."),
        (("explain", "--dtype", "int8"), "argument --dtype: invalid choice: 'int8'"),
        (("explain", "--kv-heads", "3"), "H % Hkv must be 0: got H = 8 and Hkv = 3"),
        (("explain", "--batch", "-1"), "sizes count something and must be at least 0: got (B, H, L, D) = (-1, "),
        (("explain", "--device", "nowhere"), "cannot be had on 'nowhere': "),
        (("explain", "--backend", "fastest"), "backend must be one of 'native', "),
        (("explain", "--dropout", "1"), "dropout_p must be at least 0 and below 1: got 1.0."),
    ],
)
def test_a_command_line_that_cannot_be_followed(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert sentence in err
    assert err.startswith("regard")
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_an_interruption_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "_run", interrupted)
    assert run("info") == (130, "", "")


def test_a_file_that_cannot_be_used_is_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    status, out, err = run("recall", "--out", str(tmp_path / "file" / "recall"))
    assert (status, out) == (2, "")
    assert err == f"regard: {tmp_path / 'file' / 'recall'}: Not a directory.\n"


def test_a_reader_who_stops_is_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "regard", "tour"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(timeout=60) in (1, 141)


def test_a_fresh_process_pipes_plain_text() -> None:
    done = fresh("tour", "--section", "9", COLUMNS="60")
    assert done.returncode == 0
    assert done.stderr == b""
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert "9. The causal mask" in text
    assert " 0.5517  0.4483 " in text


def test_a_fresh_process_refuses_in_one_sentence() -> None:
    done = fresh("explain", "--mask", "Causal(")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr == b"regard: a mask is an expression such as 'Causal() & SlidingWindow(255)': got 'Causal('.\n"


def test_an_encoding_without_boxes_gets_other_signs() -> None:
    done = fresh("tour", "--section", "9", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert done.returncode == 0
    assert b"  Your     ##..........\n" in done.stdout


def test_a_closed_pipe_is_no_traceback() -> None:
    command = [sys.executable, "-m", "regard", "tour"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert b"Traceback" not in err
    assert b"BrokenPipe" not in err

"""Installing without a C++ compiler: nothing is built, everything works, and `regard info` says what is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.needs import program

import regard as rg
from regard import _ready
from regard.backends.native import library
from regard.cli.main import main

ROOT = Path(__file__).parents[2]


def test_the_build_says_that_it_goes_without_kernels_and_installs_none(tmp_path: Path) -> None:
    cmake = program("cmake")
    environment = os.environ | {"CXX": str(tmp_path / "no-such-compiler"), "CC": str(tmp_path / "nor-this")}

    def run(*arguments: object) -> str:
        command = [cmake, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return " ".join((done.stdout + done.stderr).split())

    said = run("-S", ROOT, "-B", tmp_path / "build")
    assert "No C++ compiler" in said
    assert "regard is installed without its native kernels" in said
    run("--build", tmp_path / "build")
    run("--install", tmp_path / "build", "--prefix", tmp_path / "installed")
    assert not list((tmp_path / "installed").rglob("*.so"))


def test_without_kernels_everything_works_and_info_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    q, k, v = (torch.randn(1, 2, 20, 8, requires_grad=True) for _ in range(3))
    arguments: dict[str, Any] = {"mask": rg.SlidingWindow(3), "score_mod": rg.Softcap(5.0)}
    right = torch.autograd.grad(rg.attention(q, k, v, **arguments, backend="reference").sum(), (q, k, v))
    monkeypatch.setattr(library, "supported", lambda: ())
    _ready.forget()
    found = torch.autograd.grad(rg.attention(q, k, v, **arguments).sum(), (q, k, v))
    for ours, theirs in zip(found, right, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert rg.inspect(q, k, v).weights.received().shape == (1, 2, 20)
    with pytest.raises(rg.UnsupportedError, match="has no compiled kernels here: none were built"):
        rg.attention(q, k, v, backend="native")
    assert main(["info"]) == 0
    assert "has no compiled kernels here: none were built when regard was installed" in " ".join(
        capsys.readouterr().out.split()
    )

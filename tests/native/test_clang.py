"""The kernels compile with Clang, which is the compiler of a Mac, as they do with GCC."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
from tests.needs import program

SOURCE = Path(__file__).parents[2] / "native" / "kernels.cpp"
VARIANTS = {"portable": [], "avx2": ["-mavx2", "-mfma", "-mf16c"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_clang_takes_the_kernels(variant: str) -> None:
    if VARIANTS[variant] and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("another processor than the variant's")
    done = subprocess.run(
        [program("clang"), "-x", "c++", "-std=gnu++17", "-fsyntax-only", "-w", *VARIANTS[variant], str(SOURCE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr

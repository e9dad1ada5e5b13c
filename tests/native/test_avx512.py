"""The AVX-512 form of the kernels, vectors of 16 and pairs of bfloat16, on a processor that has only AVX2.

The compiler splits the vectors, and `avx512_by_avx2.h` stands in for the few instructions that the kernels name. What
the processor runs itself is tested where every variant is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.needs import program

from regard.backends.native import library
from regard.backends.native.sources import digest

HERE = Path(__file__).parent
TESTS = HERE.parent
VARIANTS = {"avx512": [], "avx512_bf16": ["-DEMULATED_BF16"]}
FLAGS = ["-std=c++17", "-O1", "-fno-math-errno", "-fno-trapping-math", "-mavx2", "-mfma", "-mf16c", "-w", "-Wno-psabi"]

pytestmark = [
    pytest.mark.skipif("avx512_bf16" in library.supported(), reason="this processor runs them itself"),
    pytest.mark.skipif("avx2" not in library.supported(), reason="the emulation needs AVX2"),
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    compiler, source = program("g++"), HERE.parents[1] / "native" / "kernels.cpp"
    shared = ["-shared", "-fPIC", "-fvisibility=hidden", f'-DREGARD_BUILD="{digest()}"']
    emulation = ["-include", str(HERE / "avx512_by_avx2.h")]
    builds = [
        subprocess.Popen(
            [compiler, *FLAGS, *shared, *emulation, *chosen, str(source), "-o", str(folder / f"libregard_{name}.so")]
        )
        for name, chosen in VARIANTS.items()
    ]
    assert [build.wait(timeout=300) for build in builds] == [0, 0]
    return folder


@pytest.mark.parametrize(
    "tests",
    [
        ["backends/test_agreement.py", "-k", "native"],
        ["backends/test_native_backend.py", "backends/test_native_memory.py", "-k", "not Refusals"],
        ["weights/test_native_statistics.py", "native/test_entropy.py", "native/test_weights_in_bfloat16.py"],
    ],
    ids=lambda tests: tests[0],
)
def test_what_is_asked_of_every_variant(kernels: Path, tests: list[str]) -> None:
    chosen = [str(TESTS / word) if word.endswith(".py") else word for word in tests]
    plugins = ["-p", "tests.native.emulated", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--kernels", str(kernels), *chosen],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout

"""The portable kernels, cross-built for 64-bit Arm and run under an emulator, against the formula in float64."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
import torch
from tests.needs import program
from torch import Tensor

import regard as rg

HERE = Path(__file__).parent
CASES: list[tuple[tuple[int, ...], tuple[int, int]]] = [
    # batch, kv_heads, group, q_len, k_len, features, value_features; the band that row i sees, j - i
    ((1, 1, 1, 1, 1, 1, 1), (-9, 9)),
    ((2, 2, 2, 13, 29, 7, 5), (-(1 << 40), 17)),
    ((1, 2, 1, 50, 50, 64, 64), (-5, 3)),
    ((1, 1, 3, 211, 131, 33, 128), (-(1 << 40), 1 << 40)),
    ((1, 1, 1, 9, 4, 16, 3), (-(1 << 40), -4)),
]
"""In the last case the first rows see nothing."""


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = program("aarch64-linux-gnu-g++")
    built = tmp_path_factory.mktemp("aarch64") / "replay"
    sources = [HERE / "replay.cpp", HERE.parents[1] / "native" / "kernels.cpp"]
    flags = ["-std=c++17", "-O1", "-fno-math-errno", "-fno-trapping-math", "-static"]
    subprocess.run([compiler, *flags, *map(str, sources), "-o", str(built)], check=True, timeout=300)
    return built


def case(sizes: tuple[int, ...], band: tuple[int, int]) -> bytes:
    """One case as `replay.cpp` reads it, with what the reference gives in float64."""
    batch, kv_heads, group, q_len, k_len, width, value_width = sizes
    q, k, v, dout = (
        torch.randn(batch, heads, length, features, dtype=torch.float64)
        for heads, length, features in (
            (kv_heads * group, q_len, width),
            (kv_heads, k_len, width),
            (kv_heads, k_len, value_width),
            (kv_heads * group, q_len, value_width),
        )
    )
    q, k, v, dout = (x.float().double() for x in (q, k, v, dout))
    low, high = band
    ahead = torch.arange(k_len) - torch.arange(q_len)[:, None]
    mask = rg.Dense((ahead >= low) & (ahead < high))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    seen = rg.inspect(*leaves, mask=mask, scale=0.3, backend="reference")
    grads = torch.autograd.grad(seen.out, leaves, dout)

    def numbers(x: Tensor) -> bytes:
        return x.detach().float().contiguous().numpy().tobytes()

    tensors = [torch.tensor([0.3]), q, k, v, dout, seen.out, seen.lse, *grads]
    return struct.pack("9q", *sizes, low, high) + b"".join(map(numbers, tensors))


def test_kernels_of_another_processor_give_the_same_numbers(replay: Path, tmp_path: Path) -> None:
    file = tmp_path / "cases"
    file.write_bytes(b"".join(case(*one) for one in CASES))
    done = subprocess.run(
        [program("qemu-aarch64"), str(replay), str(file)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    errors = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    assert len(errors) == len(CASES)
    for (sizes, _), row in zip(CASES, errors, strict=True):
        assert max(row) < 5e-6, f"{sizes}: out, lse, dq, dk, dv are off by {row}"

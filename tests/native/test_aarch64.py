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
from regard.backends.native.abi import DTYPES, MaskKind
from regard.backends.native.masks import kernel_mask

HERE = Path(__file__).parent
Sizes = tuple[int, int, int, int, int, int, int]
"""Batch, kv_heads, group, q_len, k_len, features, value_features."""
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
CASES: list[tuple[Sizes, rg.Mask, torch.dtype]] = [
    ((1, 1, 1, 1, 1, 1, 1), rg.SlidingWindow(9, 9), FLOAT32),
    ((2, 2, 2, 13, 29, 7, 5), rg.Causal(), FLOAT32),
    ((1, 2, 1, 50, 50, 64, 64), rg.SlidingWindow(5, 3), FLOAT32),
    ((1, 1, 3, 211, 131, 33, 128), rg.Everything(), FLOAT32),
    ((1, 1, 1, 9, 4, 16, 3), rg.Causal(), FLOAT32),  # the first rows see nothing
    ((1, 1, 2, 70, 70, 16, 8), rg.Causal() & rg.Document.from_lengths([30, 3, 37]), FLOAT32),
    ((1, 2, 1, 40, 99, 8, 16), rg.Causal() & (rg.Prefix(7) | rg.SlidingWindow(20)), FLOAT32),
    ((2, 1, 2, 60, 75, 16, 16), rg.Dilated(3) & ~rg.Prefix(4), FLOAT32),
    ((1, 1, 1, 3, 40, 16, 16), rg.Causal(), BFLOAT16),
    ((2, 2, 2, 77, 77, 24, 40), rg.Causal(), BFLOAT16),
    ((1, 1, 2, 70, 70, 16, 8), rg.Causal() & rg.Document.from_lengths([30, 3, 37]), BFLOAT16),
    ((1, 1, 1, 60, 75, 16, 16), rg.Dilated(3), BFLOAT16),
]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = program("aarch64-linux-gnu-g++")
    built = tmp_path_factory.mktemp("aarch64") / "replay"
    sources = [HERE / "replay.cpp", HERE.parents[1] / "native" / "kernels.cpp"]
    flags = ["-std=c++17", "-O1", "-fno-math-errno", "-fno-trapping-math", "-static"]
    subprocess.run([compiler, *flags, *map(str, sources), "-o", str(built)], check=True, timeout=300)
    return built


def handed_over(mask: rg.Mask, q_len: int, k_len: int) -> tuple[int, bytes]:
    """The kind of a mask, and what `replay.cpp` reads of it."""
    kept = kernel_mask(mask, mask.frame(q_len, k_len), 1)
    view = kept.view
    if view.kind == MaskKind.BAND:
        return view.kind, struct.pack("2q", view.band_low, view.band_high)
    return view.kind, b"".join(x.contiguous().numpy().tobytes() for x in kept.kept)


def case(sizes: Sizes, mask: rg.Mask, dtype: torch.dtype) -> bytes:
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
    q, k, v, dout = (x.to(dtype).double() for x in (q, k, v, dout))
    kind, form = handed_over(mask, q_len, k_len)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    seen = rg.inspect(*leaves, mask=mask, scale=0.3, backend="reference")
    grads = torch.autograd.grad(seen.out, leaves, dout)

    def numbers(x: Tensor) -> bytes:
        return x.detach().float().contiguous().numpy().tobytes()

    tensors = [torch.tensor([0.3]), q, k, v, dout, seen.out, seen.lse, *grads]
    return struct.pack("9q", *sizes, DTYPES[dtype], kind) + form + b"".join(map(numbers, tensors))


def test_kernels_of_another_processor_give_the_same_numbers(replay: Path, tmp_path: Path) -> None:
    file = tmp_path / "cases"
    file.write_bytes(b"".join(case(*one) for one in CASES))
    done = subprocess.run(
        [program("qemu-aarch64"), str(replay), str(file)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    errors = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    assert len(errors) == len(CASES)
    for (sizes, mask, dtype), row in zip(CASES, errors, strict=True):
        # What is stored in bfloat16 is rounded once.
        allowed = 5e-6 if dtype == FLOAT32 else 2**-8
        assert max(row) < allowed, f"{sizes} {mask} {dtype}: out, lse, dq, dk, dv are off by {row}"
        assert row[1] < 5e-6

"""The portable kernels, cross-built for 64-bit Arm and run under an emulator, against the formula in float64."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tests.needs import program
from torch import Tensor

import regard as rg
from regard._call import make_call
from regard._dispatch import backend
from regard.backends.native.abi import DTYPES, MaskKind
from regard.backends.native.masks import kernel_mask
from regard.weights import AttentionWeights

HERE = Path(__file__).parent
Sizes = tuple[int, int, int, int, int, int, int]
"""Batch, kv_heads, group, q_len, k_len, features, value_features."""
SEED = 20261124
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


class Case(NamedTuple):
    """What one call of the kernels is given beside random operands, sinks and biases."""

    sizes: Sizes
    mask: rg.Mask
    dtype: torch.dtype = FLOAT32
    cap: float = 0.0
    bias: bool = False
    sinks: bool = False
    dropout: float = 0.0


DOCUMENTS = rg.Causal() & rg.Document.from_lengths([30, 3, 37])
CASES = [
    Case((1, 1, 1, 1, 1, 1, 1), rg.SlidingWindow(9, 9)),
    Case((2, 2, 2, 13, 29, 7, 5), rg.Causal()),
    Case((1, 2, 1, 50, 50, 64, 64), rg.SlidingWindow(5, 3)),
    Case((1, 1, 3, 211, 131, 33, 128), rg.Everything()),
    Case((1, 1, 1, 9, 4, 16, 3), rg.Causal()),  # the first rows see nothing
    Case((1, 1, 2, 70, 70, 16, 8), DOCUMENTS),
    Case((1, 2, 1, 40, 99, 8, 16), rg.Causal() & (rg.Prefix(7) | rg.SlidingWindow(20))),
    Case((2, 1, 2, 60, 75, 16, 16), rg.Dilated(3) & ~rg.Prefix(4)),
    Case((1, 1, 1, 3, 40, 16, 16), rg.Causal(), BFLOAT16),
    Case((2, 2, 2, 77, 77, 24, 40), rg.Causal(), BFLOAT16),
    Case((1, 1, 2, 70, 70, 16, 8), DOCUMENTS, BFLOAT16),
    Case((1, 1, 1, 60, 75, 16, 16), rg.Dilated(3), BFLOAT16),
    Case((2, 1, 3, 45, 83, 16, 8), rg.Causal(), cap=1.5),
    Case((1, 2, 2, 37, 90, 16, 8), rg.Causal(), cap=2.0, bias=True, sinks=True),
    Case((1, 2, 2, 2, 150, 16, 16), rg.Everything(), bias=True),
    Case((2, 1, 2, 9, 7, 16, 16), rg.Causal(), sinks=True),
    Case((2, 2, 2, 65, 65, 16, 16), rg.Causal(), dropout=0.3),
    Case((1, 1, 2, 70, 70, 16, 8), DOCUMENTS, BFLOAT16, sinks=True, dropout=0.2),
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


def written(case: Case) -> bytes:
    """One case as `replay.cpp` reads it, with what the reference gives in float64."""
    batch, kv_heads, group, q_len, k_len, width, value_width = case.sizes
    heads = kv_heads * group
    shapes = {
        "q": (batch, heads, q_len, width),
        "k": (batch, kv_heads, k_len, width),
        "v": (batch, kv_heads, k_len, value_width),
        "grad_out": (batch, heads, q_len, value_width),
    }
    given = {name: torch.randn(shape).to(case.dtype).double() for name, shape in shapes.items()}
    grad_entropy = torch.randn(batch, heads, q_len).double()
    bias = torch.randn(heads, q_len, k_len).double().requires_grad_() if case.bias else torch.zeros(0).double()
    sinks = torch.randn(heads).double() if case.sinks else torch.zeros(0).double()
    changes = [*([rg.Softcap(case.cap)] if case.cap else []), *([rg.Bias(bias)] if case.bias else [])]
    leaves = [x.requires_grad_() for x in (given["q"], given["k"], given["v"])]
    call = make_call(
        leaves[0], leaves[1], leaves[2], mask=case.mask, score_mod=changes, scale=0.3,
        sinks=sinks if case.sinks else None, dropout_p=case.dropout,
    ).with_(wants_lse=True, stats=("entropy", "max"), seed=SEED if case.dropout else None)  # fmt: skip
    result = backend("reference").run(call)
    assert result.lse is not None
    outputs = [result.out, result.stats["entropy"]]
    wanted = [*leaves, *([bias] if case.bias else [])]
    grads = torch.autograd.grad(outputs, wanted, [given["grad_out"], grad_entropy])
    received = AttentionWeights(call, result.lse).received()
    expected = [result.out, result.lse, result.stats["max"].log() + result.lse, outputs[1], received, *grads]

    def numbers(x: Tensor) -> bytes:
        return x.detach().float().contiguous().numpy().tobytes()

    kind, form = handed_over(case.mask, q_len, k_len)
    flags = DTYPES[case.dtype], kind, case.bias, case.sinks, SEED, int(case.dropout * 2**32)
    factors = torch.tensor([0.3, case.cap, 1 / (1 - case.dropout)])
    tensors = [factors, bias, sinks, *given.values(), grad_entropy, *expected]
    return struct.pack("13q", *case.sizes, *flags) + form + b"".join(map(numbers, tensors))


def test_kernels_of_another_processor_give_the_same_numbers(replay: Path, tmp_path: Path) -> None:
    file = tmp_path / "cases"
    file.write_bytes(b"".join(map(written, CASES)))
    done = subprocess.run(
        [program("qemu-aarch64"), str(replay), str(file)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    errors = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    assert len(errors) == len(CASES)
    for case, row in zip(CASES, errors, strict=True):
        stored, exact = row[:4], row[4:]
        # What is stored in bfloat16 is rounded once.
        assert max(stored) < (5e-6 if case.dtype == FLOAT32 else 2**-8), f"{case}: out, dq, dk, dv are off by {stored}"
        assert max(exact) < 5e-6, f"{case}: lse, top, entropy, received and the bias's gradient are off by {exact}"

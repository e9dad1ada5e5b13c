"""Threads of the native kernels: as many as torch has, on torch's own, from several callers, and in a forked child."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.native.calls import gradients, hold, operands, run_python
from torch import Tensor, nn

import regard as rg
from regard.backends.native import library

pytestmark = pytest.mark.skipif(not library.supported(), reason="no kernels were built here")
reads_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the process is looked at in /proc")


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many threads each parallel region asked for; they take turns on this one."""
    asked: list[int] = []
    body_of = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def in_turns(body: int, data: int, threads: int, _: int) -> None:
        asked.append(threads)
        for _ in range(threads):
            body_of(body)(data)

    parallel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(in_turns)
    address = ctypes.cast(parallel, ctypes.c_void_p).value
    monkeypatch.setattr(library, "parallel", lambda: address)
    yield asked
    torch.set_num_threads(1)


def test_as_many_threads_as_torch_has_though_the_number_changes(asked_for: list[int]) -> None:
    q, k, v = (x.requires_grad_() for x in operands(2, 3, 500, 8))

    def used(act: Any) -> int:
        asked_for.clear()
        act()
        return max(asked_for, default=1)

    for threads in (3, 1, 2, 5):
        torch.set_num_threads(threads)
        for _ in range(2):  # the second call is prepared
            with torch.no_grad():
                assert used(lambda: rg.attention(q, k, v, backend="native")) == threads
            out = rg.attention(q, k, v, backend="native")
            assert used(out.sum().backward) == threads
        seen = rg.inspect(q, k, v, mask=rg.Causal(), stats=("entropy",), backend="native")
        assert used((seen.lse.sum() + seen.stats["entropy"].sum()).backward) == threads
        assert used(seen.weights.received) == threads
    # What was run on more threads is differentiated on fewer.
    torch.set_num_threads(1)
    assert used(rg.attention(q, k, v, backend="native").sum().backward) == 1


@reads_proc
def test_the_threads_are_torchs_own() -> None:
    """As many threads in the process after torch and the kernels have each used two, in either order."""
    code = """
import os, torch, regard as rg
torch.set_num_threads(1)
q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 4, 900, 16).unbind())
big = torch.randn(500, 500)
rg.attention(q, k, v, backend="native").sum().backward()
torch.set_num_threads(2)
def torchs(): (big @ big).exp()
def ours(): rg.attention(q, k, v, backend="native").sum().backward()
counts = [len(os.listdir("/proc/self/task"))]
for act in (ours, torchs, ours) if ORDER else (torchs, ours, torchs):
    act()
    counts.append(len(os.listdir("/proc/self/task")))
print(*(n - counts[0] for n in counts))
"""
    for order in ("True", "False"):
        done = run_python(code.replace("ORDER", order))
        assert done.stdout.split() == ["0", "1", "1", "1"], done.stdout + done.stderr


@reads_proc
def test_there_is_one_openmp_runtime() -> None:
    code = """
import torch, regard as rg
torch.set_num_threads(2)
rg.attention(*torch.randn(3, 1, 4, 300, 16).unbind(), backend="native")
names = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
print(sum("gomp" in name.rsplit("/")[-1] or "iomp" in name.rsplit("/")[-1] for name in names))
"""
    assert run_python(code).stdout.strip() == "1"


CALLS: dict[str, dict[str, Any]] = {
    "causal": {"mask": rg.Causal()},
    "bits": {"mask": rg.Dilated(3)},
    "scores": {"mask": rg.Causal(), "score_mod": [rg.Softcap(2.0), rg.Alibi.for_heads(4)], "dropout_p": 0.3},
}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("kv_heads", "q_len"), [(2, 700), (1, 40)], ids=["tasks", "parts of the keys"])
def test_the_same_bits_every_time(name: str, dtype: torch.dtype, kv_heads: int, q_len: int) -> None:
    q = torch.randn(1, 4, q_len, 16).to(dtype).requires_grad_()
    k, v = (torch.randn(1, kv_heads, 1100, 16).to(dtype).requires_grad_() for _ in range(2))
    bias = torch.randn(4, 1, 1100, requires_grad=True)
    sinks = torch.randn(4, requires_grad=True)
    dout = torch.randn(1, 4, q_len, 16).to(dtype)

    def everything() -> list[Tensor]:
        torch.manual_seed(1)
        mods = [*CALLS[name].get("score_mod", []), rg.Bias(bias)]
        arguments = CALLS[name] | {"score_mod": mods, "sinks": sinks, "backend": "native"}
        seen = rg.inspect(q, k, v, stats=("entropy",), **arguments)
        loss = (seen.out * dout).float().sum() + seen.stats["entropy"].sum()
        weights = seen.weights
        gathered = [weights.received(), weights.pool(7, 7), *weights.topk(3)]
        return [seen.out, seen.lse, *torch.autograd.grad(loss, (q, k, v, bias, sinks)), *gathered]

    first = everything()
    for _ in range(3):
        assert all(map(torch.equal, first, everything()))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("heads", "length"), [(3, 500), (3, 800), (5, 800)], ids=["whole", "split", "whole and split"])
def test_two_threads_give_the_oracle(heads: int, length: int) -> None:
    hold(*operands(heads, length, 8), "two threads", mask=rg.Causal())


@pytest.mark.parametrize("heads", [3, 5])
def test_heads_that_threads_split_give_the_gradients_of_one_thread(heads: int) -> None:
    q, k, v = (x.requires_grad_() for x in operands(2, heads, 800, 8))
    rows, sinks, by_distance = torch.randn(2, heads, 800, 1), torch.randn(heads), rg.RelativeBias(heads)
    nn.init.normal_(by_distance.table)
    learned = (rows.requires_grad_(), sinks.requires_grad_(), by_distance.table)
    mods = [rg.Bias(rows), rg.Softcap(3.0), by_distance]
    dout = torch.randn(q.shape)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = rg.attention(q, k, v, mask=rg.Causal(), score_mod=mods, sinks=sinks, backend="native")
            found.append(torch.autograd.grad(out, (q, k, v, *learned), dout))
    finally:
        torch.set_num_threads(1)
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5 * one.abs().max().item())


@pytest.mark.parametrize("prepared", [False, True])
def test_eight_callers_at_once(prepared: bool) -> None:
    inputs = [[x.requires_grad_() for x in operands(1, 2, 150 if prepared else 150 + n, 16)] for n in range(8)]
    douts = [torch.randn(x[0].shape) for x in inputs]

    def one(n: int) -> tuple[Tensor, ...]:
        q, k, v = inputs[n]
        if prepared:
            return torch.autograd.grad(rg.attention(q, k, v, backend="native"), (q, k, v), douts[n])
        return tuple(gradients(q, k, v, douts[n]).values())

    alone = [one(n) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(6):
            for expected, found in zip(alone, pool.map(one, range(8)), strict=True):
                assert all(map(torch.equal, expected, found))


def test_a_forked_child_computes_on_one_thread() -> None:
    """Forward, backward and statistics, and the backward pass of what the parent computed; torch's own operators, which
    would wait for the parent's threads from 32,768 numbers on, as well."""
    code = """
import os, torch, regard as rg
from regard.backends.native import library
torch.set_num_threads(2)
q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 4, 9000, 8).unbind())
given = [torch.randn(1, 4, 9000, 8), torch.randn(1, 4, 9000), torch.randn(1, 4, 9000)]
def calls():
    arguments = {"mask": rg.SlidingWindow(9), "backend": "native"}
    seen = rg.inspect(q, k, v, sinks=torch.ones(4), stats=("entropy",), **arguments)
    return rg.attention(q, k, v, **arguments), seen
def all_of(out, seen):
    one = torch.autograd.grad(out, (q, k, v), given[0], retain_graph=True)
    other = torch.autograd.grad([seen.out, seen.lse, seen.stats["entropy"]], (q, k, v), given, retain_graph=True)
    few = (x[:, :, :300].detach() for x in (q, k, v))
    return [out, *one, *other, rg.inspect(*few, backend="native").weights.received()]
calls()
made = calls()
before = all_of(*made)
threads = [library.threads()]
child = os.fork()
if child == 0:
    found = all_of(*calls()) + all_of(*made)
    threads += [library.threads(), torch.get_num_threads()]
    torch.set_num_threads(1)
    same = all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(found, before + before))
    os._exit(0 if same and threads == [2, 1, 2] else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr

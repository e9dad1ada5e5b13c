"""The native kernels beyond the agreement of all backends: every variant, tile edges, numbers, refusals.

Where no kernels were built there is nothing here to test, and one test says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.native.calls import gradients, hold, operands, run_python
from torch import Tensor

import regard as rg
from regard._call import make_call
from regard._dispatch import backend, choose
from regard.backends.native import library, masks
from regard.backends.native.plan import Plan, check, run, view_of

needs_kernels = pytest.mark.skipif(not library.supported(), reason="no kernels were built here")


class TestEdges:
    @pytest.mark.parametrize(
        ("mask", "dtype"),
        [
            (rg.Everything(), torch.float32),
            (rg.Causal(), torch.float32),
            (rg.SlidingWindow(5, 3), torch.float32),
            (rg.Causal(), torch.bfloat16),
            (rg.SlidingWindow(5, 3), torch.float16),
        ],
        ids=repr,
    )
    def test_every_length_around_a_tile(self, variant: str, mask: rg.Mask, dtype: torch.dtype) -> None:
        for length in (*range(36), *range(92, 101), *range(190, 195), *range(286, 290), 385):
            hold(*operands(1, length, 3, dtype=dtype), f"{variant}, {length} tokens", mask=mask)

    @pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 16), (torch.bfloat16, 16), (torch.bfloat16, 13)])
    def test_few_and_many_queries_around_the_edges_of_keys(self, variant: str, dtype: torch.dtype, width: int) -> None:
        """Up to 8, 12 or 24 rows read the keys of whole vectors where they are, more rows read them packed."""
        for q_len in (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 24, 25):
            for k_len in (7, 8, 9, 15, 17, 95, 96, 97, 191, 192, 193):
                q, k, v = (torch.randn(1, n, width, dtype=dtype) for n in (q_len, k_len, k_len))
                hold(q, k, v, f"{variant}, {q_len} queries, {k_len} keys", mask=rg.Causal())

    def test_every_length_to_300(self, variant: str) -> None:
        mask = rg.SlidingWindow(170, 1)
        for length in range(301):
            hold(*operands(1, length, 3), f"{variant}, {length} tokens", mask=mask)

    def test_every_width(self, variant: str) -> None:
        for width in range(1, 257):
            q, k, _ = operands(1, 7, width)
            hold(q, k, torch.randn(1, 7, 257 - width), f"{variant}, D = {width}")

    @pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 127, 128, 129, 255, 256])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_every_width_around_a_vector(self, variant: str, width: int, dtype: torch.dtype) -> None:
        q, k, _ = operands(2, 13, width, dtype=dtype)
        v = torch.randn(2, 13, 257 - width, dtype=dtype)
        hold(q, k, v, f"{variant}, D = {width}", mask=rg.Causal())

    def test_many_queries_read_packed_keys(self, variant: str) -> None:
        """Long calls pack the keys before, not while, they are read; grouped heads share them."""
        q, k, v = torch.randn(1, 6, 211, 8), torch.randn(1, 2, 131, 8), torch.randn(1, 2, 131, 5)
        hold(q, k, v, variant, mask=rg.Causal() | rg.Prefix(7), scale=0.7)

    @pytest.mark.parametrize("q_len", [1, 40])
    def test_few_queries_split_the_keys(self, variant: str, q_len: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """With fewer heads than threads the parts of the keys are merged."""
        monkeypatch.setattr(library, "threads", lambda: 4)
        monkeypatch.setattr(library, "parallel", lambda: 0)
        mask = rg.Causal() & rg.Padding.from_valid(torch.arange(1601)[None] >= 900)
        hold(torch.randn(1, q_len, 8), torch.randn(1, 1601, 8), torch.randn(1, 1601, 8), variant, mask=mask)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("q_len", [1, 2, 3, 5])
    @pytest.mark.parametrize(
        "mask", [rg.Causal(), rg.SlidingWindow(203, 0), rg.Padding(torch.tensor([389, 230])), rg.Dilated(3)], ids=repr
    )
    def test_decoding(self, variant: str, mask: rg.Mask, q_len: int, dtype: torch.dtype) -> None:
        """Few queries read keys where they are: with and without groups, what nobody sees being NaN."""
        for heads in (1, 3):
            q = torch.randn(2, 2 * heads, q_len, 16, dtype=dtype)
            k, v = (torch.randn(2, 2, 389, width, dtype=dtype) for width in (16, 24))
            hidden = ~mask.dense(q_len, 389).any(2).expand(2, 2, 389)
            k[hidden], v[hidden] = torch.nan, torch.nan
            mods = [rg.Softcap(3.0), rg.Alibi.for_heads(2 * heads)]
            hold(q, k, v, f"{variant}, {heads} heads a key", mask=mask, score_mod=mods)

    @pytest.mark.parametrize("threads", [1, 4])
    @pytest.mark.parametrize("left", [0, 60, 191, 383])
    def test_windows_whose_keys_a_task_packs(
        self, variant: str, left: int, threads: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Blocks begin where a window does; threads split few tasks by keys; no task has rows of two heads."""
        monkeypatch.setattr(library, "threads", lambda: threads)
        monkeypatch.setattr(library, "parallel", lambda: 0)
        mask = rg.SlidingWindow(left, left // 60)
        for heads, q_len, k_len in ((1, 97, 97), (1, 420, 390), (2, 385, 1153)):
            q, k = torch.randn(2, heads, q_len, 8), torch.randn(2, 1, k_len, 8)
            v = torch.randn(2, 1, k_len, 5)
            hidden = ~mask.dense(q_len, k_len).any(2).expand(2, 1, k_len)
            k[hidden], v[hidden] = torch.nan, torch.nan
            hold(q, k, v, f"{variant}, {q_len} queries, {k_len} keys", mask=mask, score_mod=rg.Softcap(3.0))

    def test_long_windows_make_long_tasks(self, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library, "threads", lambda: 1)
        hold(*operands(9, 801, 8), variant, mask=rg.SlidingWindow(100))

    def test_two_intervals_a_row(self, variant: str) -> None:
        ring = torch.arange(200).roll(67)
        mask = rg.SlidingWindow(150) & ~rg.SlidingWindow(20)
        hold(*operands(2, 200, 8), variant, mask=mask, q_positions=ring, k_positions=ring)

    @pytest.mark.parametrize("k_len", [3, 33, 195])
    def test_bits_beyond_the_last_key(self, variant: str, k_len: int) -> None:
        """A word of bits may reach past the keys, where the packed values were not written: here they are NaN."""
        for _ in range(2):
            hold(*operands(2, 13, 200), f"{variant}, to leave NaN behind", mask=rg.Causal())
            spoilt = torch.full((2, 13, 200), torch.nan)
            rg.attention(spoilt, spoilt, spoilt, mask=rg.Dilated(4), backend="native")
            hold(torch.randn(2, 7, 13), *operands(2, k_len, 13)[1:], f"{variant}, {k_len} keys", mask=rg.Dilated(4))

    def test_bits_of_every_entry_and_head(self, variant: str) -> None:
        mask = rg.Dense(torch.rand(2, 4, 130, 203) > 0.6)
        hold(torch.randn(2, 4, 130, 8), torch.randn(2, 2, 203, 8), torch.randn(2, 2, 203, 8), variant, mask=mask)


class TestNumbers:
    def test_exp(self, variant: str) -> None:
        x = torch.cat([torch.linspace(-87, 88, 400_001), torch.tensor([0.0, -0.0, -1e-30])])
        y = torch.empty_like(x)
        library.kernels(variant).regard_exp(x.data_ptr(), y.data_ptr(), len(x))
        assert _ulps(y, x.double().exp()) <= 2
        hidden = torch.tensor([-torch.inf, -1e30, -105.0, -87.1, torch.nan])
        y = torch.empty(5)
        library.kernels(variant).regard_exp(hidden.data_ptr(), y.data_ptr(), 5)
        assert y[:4].tolist() == [0.0] * 4, "a subnormal weight is 0"
        assert y[4].isnan()

    def test_exp2(self, variant: str) -> None:
        """The weights' own exponential."""
        x = torch.cat([torch.linspace(-125, 127, 400_001), torch.tensor([0.0, -0.0, -1e-30])])
        y = torch.empty_like(x)
        library.kernels(variant).regard_exp2(x.data_ptr(), y.data_ptr(), len(x))
        assert _ulps(y, x.double().exp2()) <= 2
        hidden = torch.tensor([-torch.inf, -1e30, -151.0, -125.1, torch.nan])
        y = torch.empty(5)
        library.kernels(variant).regard_exp2(hidden.data_ptr(), y.data_ptr(), 5)
        assert y[:4].tolist() == [0.0] * 4, "a subnormal weight is 0"
        assert y[4].isnan()

    def test_tanh(self, variant: str) -> None:
        x = torch.cat([torch.linspace(-12, 12, 400_001), torch.tensor([1e-30, 1e-6, 50.0, -torch.inf, torch.inf])])
        y = torch.empty_like(x)
        library.kernels(variant).regard_tanh(x.data_ptr(), y.data_ptr(), len(x))
        assert _ulps(y, x.double().tanh()) <= 4

    @pytest.mark.parametrize("size", [1e-20, 1e2, 1e4])
    def test_extreme_scores(self, variant: str, size: float) -> None:
        q, k, v = operands(2, 67, 8)
        hold(q * size, k, v, f"{variant}, scores of {size}")
        # Three rows read keys where they are, in the forward pass only.
        hold(q[:, :3] * size, k, v, f"{variant}, three rows, scores of {size}")

    @pytest.mark.parametrize("small", ["q", "v"])
    def test_subnormal_operands(self, variant: str, small: str) -> None:
        q, k, v = operands(2, 67, 8)
        hold(q * 1e-39 if small == "q" else q, k, v * 1e-39 if small == "v" else v, f"{variant}, subnormal {small}")

    def test_equal_scores(self, variant: str) -> None:
        hold(torch.zeros(2, 67, 8), torch.randn(2, 67, 8), torch.randn(2, 67, 8), variant)

    def test_a_bias_of_the_least_float_does_not_hide(self, variant: str) -> None:
        bias = torch.zeros(67, 67)
        bias[3], bias[5, 7:] = torch.finfo(torch.float32).min, torch.finfo(torch.float32).min
        hold(*operands(2, 67, 8), variant, score_mod=rg.Bias(bias))

    def test_a_bias_of_minus_infinity_hides(self, variant: str) -> None:
        allowed = torch.rand(67, 67) > 0.5
        allowed[3] = False
        q, k, v = (x.requires_grad_() for x in operands(2, 67, 8))
        dout = torch.randn(2, 67, 8)
        masked = gradients(q, k, v, dout, mask=rg.Dense(allowed), score_mod=rg.Bias(torch.zeros_like(q[0, :, :1])))
        biased = gradients(q, k, v, dout, score_mod=rg.Bias(torch.where(allowed, 0.0, -torch.inf)))
        for name, expected in masked.items():
            assert torch.equal(biased[name], expected), f"{variant}: {name}"


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"score_mod": rg.ScoreMod(lambda s, b, h, q, k: s)}, "knows Softcap, Alibi, Bias, RelativeBias"),
            ({"score_mod": [rg.Softcap(2.0), rg.Softcap(3.0)]}, "takes one Softcap, and the call has several"),
            ({"score_mod": [rg.Bias(torch.zeros(1))] * 5}, "takes at most 4 score changes, and the call has 5"),
            (
                {"score_mod": rg.Alibi.for_heads(2), "q_positions": torch.arange(7)},
                "knows Alibi at default positions only",
            ),
        ],
        ids=lambda x: x if isinstance(x, str) else "",
    )
    @needs_kernels
    def test_score_changes(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(rg.UnsupportedError, match=message):
            rg.attention(*operands(2, 7, 4), backend="native", **change)

    @needs_kernels
    def test_layouts_and_sizes(self) -> None:
        q, k, v = operands(2, 7, 4)
        with pytest.raises(rg.UnsupportedError, match=r"unit last stride, and k has strides"):
            rg.attention(q, k.mT.contiguous().mT, v, backend="native")
        with pytest.raises(rg.UnsupportedError, match="takes 1 to 256 features, and v have 257"):
            rg.attention(q, k, torch.randn(2, 7, 257), backend="native")
        wide = torch.randn(2, 7, 257)
        with pytest.raises(rg.UnsupportedError, match="takes 1 to 256 features, and q and k have 257"):
            rg.attention(wide, wide, v, backend="native")
        # Without a name another backend takes over.
        assert choose(make_call(wide, wide, v, score_mod=rg.Softcap(3.0))) is backend("blockwise")
        with pytest.raises(rg.UnsupportedError, match="takes float32, bfloat16, float16 only"):
            rg.attention(q.double(), k.double(), v.double(), backend="native")

    @needs_kernels
    def test_a_mask_of_too_many_bits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(masks, "MAX_BITS_BYTES", 0)
        with pytest.raises(rg.UnsupportedError, match=r"keeps one bit a pair .* and Dilated\(2\) needs 0 MiB"):
            rg.attention(*operands(2, 7, 4), mask=rg.Dilated(2), backend="native")
        assert rg.attention(*operands(2, 7, 4), mask=rg.Causal() | rg.Prefix(2), backend="native").isfinite().all()

    @needs_kernels
    def test_a_second_derivative(self) -> None:
        q, k, v = (x.requires_grad_() for x in operands(2, 7, 4))
        (first,) = torch.autograd.grad(rg.attention(q, k, v, backend="native").sum(), q, create_graph=True)
        with pytest.raises(rg.UnsupportedError, match=r'no second derivative.*backend="reference"'):
            first.sum().backward()

    @needs_kernels
    @pytest.mark.parametrize(
        ("forced", "message"),
        [("sse9", "must be one of portable, avx2, avx512, avx512_bf16: got 'sse9'"), ("avx512", "cannot run here")],
    )
    def test_a_forced_variant_that_cannot_run(self, monkeypatch: pytest.MonkeyPatch, forced: str, message: str) -> None:
        monkeypatch.setenv(library.CHOICE, forced)
        monkeypatch.setattr(library, "supported", lambda: ("portable",))
        with pytest.raises(rg.ArgumentError, match=message):
            library.variant.__wrapped__()

    @needs_kernels
    def test_what_the_kernels_say_is_raised(self) -> None:
        call = make_call(*operands(2, 7, 4))
        view = view_of(Plan(masks.kernel_mask(call.mask, call.frame, 1), (), 1.0, 0.0, None), call.q, call.k, call.v)
        view.struct_size -= 8
        for entry in ("regard_forward", "regard_backward", "regard_statistics"):
            with pytest.raises(RuntimeError, match="belong to another version of regard: install it again"):
                run(entry, view)
        with pytest.raises(RuntimeError, match="found no memory for what they pack"):
            check(1)

    @needs_kernels
    def test_every_variant_is_tested_by_its_own_kernels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in library.supported():
            monkeypatch.setattr(library, "variant", lambda name=name: name)
            assert Path(library.kernels()._name).name == f"libregard_{name}.so"

    def test_a_forced_variant_is_the_one_that_runs(self) -> None:
        code = "import regard.backends.native.library as l; print(l.variant(), l.kernels()._name)"
        done = run_python(code, **{library.CHOICE: "portable"}).stdout
        assert done.startswith("portable ")
        assert done.strip().endswith("libregard_portable.so")

    @needs_kernels
    def test_a_variant_that_this_processor_lacks_stops_the_call_and_not_the_process(self) -> None:
        lacking = [name for name in library.VARIANTS if name not in library.supported()]
        code = """
import torch, regard as rg
q = torch.randn(1, 2, 7, 8)
for call in (rg.attention, rg.inspect):
    try:
        call(q, q, q, mask=rg.Causal())
    except rg.ArgumentError as refused:
        print(refused)
"""
        for name in lacking[-1:]:
            done = run_python(code, **{library.CHOICE: name})
            assert done.returncode == 0, done.stderr
            assert done.stdout.count(f"{library.CHOICE}={name} cannot run here") == 2

    def test_without_kernels(self, without_kernels: None) -> None:
        with pytest.raises(rg.UnsupportedError, match="has no compiled kernels"):
            rg.attention(*operands(2, 7, 4), backend="native")
        assert rg.attention(*operands(2, 7, 4)).isfinite().all()

    def test_an_installation_without_libraries_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library, "installed", dict)
        assert library.supported.__wrapped__() == ()
        monkeypatch.setattr(library, "supported", tuple)
        assert "a C++17 compiler was missing" in (library.missing() or "")

    @needs_kernels
    def test_is_the_first_choice(self) -> None:
        assert choose(make_call(*operands(2, 300, 16), score_mod=rg.Softcap(3.0))) is backend("native")


def _ulps(found: Tensor, exact: Tensor) -> float:
    """The largest error in units of the last place of the exact value, subnormal ones included."""
    right = exact.float()
    step = (torch.nextafter(right.abs(), torch.tensor(torch.inf)) - right.abs()).double()
    error = torch.where(found.double() == exact, 0, (found.double() - exact).abs() / step)
    return float(torch.where(right.isinf(), 0, error).max())

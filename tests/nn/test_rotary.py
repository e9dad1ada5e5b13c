"""Rotary positions: the turn itself, its layouts, and the frequencies of published scalings, worked out by hand."""

import cmath
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard.nn import DynamicNTK, LinearScaling, Llama3Scaling, RotaryEmbedding, YaRN

SCALINGS = [None, LinearScaling(4.0), DynamicNTK(2.0, 5), YaRN(4.0, 16), Llama3Scaling(8.0, 16)]
LAYOUTS = ["half-split", "interleaved"]


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(dtype)


def turned_by_hand(x: Tensor, positions: list[int], dim: int, base: float, layout: str) -> Tensor:
    """Each pair as a complex number times ``exp(i p θ)``; ``x (L, D)``."""
    out = x.clone()
    for row, p in enumerate(positions):
        for j in range(dim // 2):
            a, b = (j, j + dim // 2) if layout == "half-split" else (2 * j, 2 * j + 1)
            z = complex(x[row, a], x[row, b]) * cmath.exp(1j * p * base ** (-2 * j / dim))
            out[row, a], out[row, b] = z.real, z.imag
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dim", [2, 6, 10])
def test_each_pair_is_a_complex_number_that_turns(layout: str, dim: int) -> None:
    q, k, positions = drawn(5, 10), drawn(5, 10) + 1, [0, 3, 1, 70001, 3]
    rope = RotaryEmbedding(dim, base=500.0, layout=layout)  # type: ignore[arg-type]
    for one, x in zip(rope(q, k, torch.tensor(positions)), (q, k), strict=True):
        torch.testing.assert_close(one, turned_by_hand(x, positions, dim, 500.0, layout), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scaling", [s for s in SCALINGS if not isinstance(s, DynamicNTK)], ids=str)
@given(distance=st.integers(-50, 50), place=st.integers(0, 1_000_000))
def test_scores_depend_on_the_distance_alone(
    layout: str, scaling: rg.nn.RotaryScaling | None, distance: int, place: int
) -> None:
    rope = RotaryEmbedding(8, layout=layout, scaling=scaling)  # type: ignore[arg-type]
    q, k = drawn(1, 8), drawn(1, 8) * 2 + 1

    def score(p: int) -> float:
        turned_q, _ = rope(q, q, torch.tensor([p]))
        _, turned_k = rope(k, k, torch.tensor([p + distance]))
        return float((turned_q * turned_k).sum())

    assert score(place) == pytest.approx(score(0), rel=1e-7, abs=1e-7)


def frequencies(scaling: rg.nn.RotaryScaling, dim: int, base: float, length: int = 1) -> list[float]:
    return [float(f) for f in scaling.frequencies(dim, base, torch.arange(length))]


def test_linear_scaling_divides_every_frequency() -> None:
    assert frequencies(LinearScaling(4.0), 4, 10000.0) == pytest.approx([0.25, 0.0025])


@pytest.mark.parametrize(("length", "growth"), [(1, 1.0), (100, 1.0), (150, 2.0), (400, 7.0)])
def test_dynamic_ntk_grows_the_base_beyond_the_original_length(length: int, growth: float) -> None:
    # factor 2: 2 * L / 100 - 1.
    base = 10000.0 * growth ** (6 / 4)
    expected = [base ** (-2 * j / 6) for j in range(3)]
    assert frequencies(DynamicNTK(2.0, 100), 6, 10000.0, length) == pytest.approx(expected)


def test_yarn_mixes_over_the_indices_between_its_two_numbers_of_turns() -> None:
    # As Qwen2.5 is published: base 1e6, heads of 128, factor 4, 32768 tokens. Index of r turns:
    # 128 ln(32768 / (2π r)) / (2 ln 1e6) = 23.596 for r = 32 and 39.651 for r = 1, so the ramp goes from 23 to 40.
    found = frequencies(YaRN(4.0, 32768), 128, 1e6)
    for j, frequency in enumerate(found):
        plain, divided = 1e6 ** (-j / 64), min(max((j - 23) / 17, 0.0), 1.0)
        assert frequency == pytest.approx(plain * (1 - divided) + plain / 4 * divided)


def test_yarn_without_rounding_has_its_ends_between_indices() -> None:
    # As gpt-oss is published: base 150000, heads of 64, factor 32, 4096 tokens, not truncated.
    first, last = (64 * math.log(4096 / (2 * math.pi * turns)) / (2 * math.log(150000)) for turns in (32, 1))
    assert (first, last) == pytest.approx((8.0928, 17.398), rel=1e-4)
    found = frequencies(YaRN(32.0, 4096, truncate=False), 64, 150000.0)
    assert found[8] == pytest.approx(150000 ** (-8 / 32))
    inside = (12 - first) / (last - first)
    assert found[12] == pytest.approx(150000 ** (-12 / 32) * (1 - inside + inside / 32))
    assert found[18] == pytest.approx(150000 ** (-18 / 32) / 32)


def test_yarn_makes_queries_and_keys_longer() -> None:
    assert YaRN(4.0, 64).magnitude == pytest.approx(1.1386294361119891)
    assert YaRN(1.0, 64).magnitude == 1.0
    assert YaRN(4.0, 64, attention_factor=0.5).magnitude == 0.5
    rope, q = RotaryEmbedding(4, scaling=YaRN(4.0, 64)), drawn(3, 6)
    turned, _ = rope(q, q, torch.arange(3))
    torch.testing.assert_close(turned[:, :4].norm(dim=-1), 1.1386294361119891 * q[:, :4].norm(dim=-1))
    assert torch.equal(turned[:, 4:], q[:, 4:])


def test_llama_3_keeps_short_waves_and_stretches_long_ones() -> None:
    # As Llama 3.1 is published: base 500000, heads of 128, factor 8, 8192 tokens, 1 and 4 turns.
    found = frequencies(Llama3Scaling(), 128, 500000.0)
    for j, frequency in enumerate(found):
        plain = 500000.0 ** (-j / 64)
        wavelength = 2 * math.pi / plain
        if wavelength < 8192 / 4:
            expected = plain
        elif wavelength > 8192:
            expected = plain / 8
        else:
            smooth = (8192 / wavelength - 1) / 3
            expected = (1 - smooth) * plain / 8 + smooth * plain
        assert frequency == pytest.approx(expected)
    assert found[28] == pytest.approx(500000.0 ** (-28 / 64))
    assert found[29] < 500000.0 ** (-29 / 64)
    assert found[35] == pytest.approx(500000.0 ** (-35 / 64) / 8)


@pytest.mark.parametrize("dim", [2, 4, 6])
def test_converted_weights_and_the_other_layout_leave_attention_unchanged(dim: int) -> None:
    torch.manual_seed(5)
    options = {"num_kv_heads": 2, "head_dim": 6, "qkv_bias": True}
    split = rg.nn.MultiHeadAttention(7, 24, 13, 0.0, 4, rope=RotaryEmbedding(dim), **options)  # type: ignore[arg-type]
    other = rg.nn.MultiHeadAttention(
        7,
        24,
        13,
        0.0,
        4,
        rope=RotaryEmbedding(dim, layout="interleaved"),
        **options,  # type: ignore[arg-type]
    )
    state = split.state_dict()
    for name, heads in (("W_query", 4), ("W_key", 2)):
        for part in ("weight", "bias"):
            state[f"{name}.{part}"] = rg.nn.half_split_to_interleaved(state[f"{name}.{part}"], heads, dim)
            back = rg.nn.interleaved_to_half_split(state[f"{name}.{part}"], heads, dim)
            assert torch.equal(back, split.state_dict()[f"{name}.{part}"])
    x = drawn(2, 11, 7)
    assert dim == 2 or not torch.allclose(other.double()(x), split.double()(x))
    other.load_state_dict(state)
    torch.testing.assert_close(other.double()(x), split.double()(x))


def test_positions_a_batch_entry() -> None:
    rope, q, k = RotaryEmbedding(4), drawn(2, 3, 5, 4), drawn(2, 1, 5, 4)
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 3, 3, 0, 9]])
    for entry in range(2):
        both = rope(q, k, positions)
        alone = rope(q[entry], k[entry], positions[entry])
        assert torch.equal(both[0][entry], alone[0])
        assert torch.equal(both[1][entry], alone[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_turns_in_float32_and_rounds_once(dtype: torch.dtype) -> None:
    rope, x = RotaryEmbedding(6), drawn(1, 9, 6, dtype=dtype)
    positions = torch.arange(9) * 12345
    turned, _ = rope(x, x, positions)
    assert turned.dtype == dtype
    exact, _ = rope(x.double(), x.double(), positions)
    torch.testing.assert_close(turned.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_it_has_no_state_and_copies(scaling: rg.nn.RotaryScaling | None) -> None:
    rope = RotaryEmbedding(4, scaling=scaling)
    assert rope.state_dict() == {}
    again = pickle.loads(pickle.dumps(rope))
    assert repr(again) == repr(rope)
    assert scaling is None or again.scaling == scaling
    q = drawn(7, 4)
    assert torch.equal(again(q, q, torch.arange(7))[0], rope(q, q, torch.arange(7))[0])


def test_repr() -> None:
    assert repr(RotaryEmbedding(4)) == "RotaryEmbedding(4, base=10000.0, layout='half-split')"
    scaled = RotaryEmbedding(4, base=5e5, layout="interleaved", scaling=LinearScaling(2.0))
    assert repr(scaled).endswith("base=500000.0, layout='interleaved', scaling=LinearScaling(factor=2.0))")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RotaryEmbedding(5), rg.ArgumentError, "dim counts features .* must be even: got 5"),
        (lambda: RotaryEmbedding(4.0), rg.KindError, r"dim must be an int: got 4\.0"),  # type: ignore[arg-type]
        (lambda: RotaryEmbedding(4, base=1.0), rg.ArgumentError, r"base must be above 1.*: got 1\.0"),
        (lambda: RotaryEmbedding(4, base="10000"), rg.KindError, "base must be a number: got '10000'"),  # type: ignore[arg-type]
        (lambda: RotaryEmbedding(4, layout="neox"), rg.ArgumentError, "'interleaved': got 'neox'"),  # type: ignore[arg-type]
        (lambda: RotaryEmbedding(4, scaling="yarn"), rg.KindError, "scaling takes .*: got 'yarn'"),  # type: ignore[arg-type]
        (lambda: LinearScaling(0.5), rg.ArgumentError, r"factor must be at least 1\.0 and finite: got 0\.5"),
        (lambda: LinearScaling(math.inf), rg.ArgumentError, "and finite: got inf"),
        (lambda: LinearScaling("2"), rg.KindError, "factor must be a number: got '2'"),  # type: ignore[arg-type]
        (lambda: DynamicNTK(2.0, 0), rg.ArgumentError, "original_length must be at least 1: got 0"),
        (lambda: YaRN(2.0, 64, 1.0, 2.0), rg.ArgumentError, r"beta_fast must be above 2\.0 and finite: got 1\.0"),
        (lambda: YaRN(2.0, 64, attention_factor=0.0), rg.ArgumentError, "attention_factor must be above 0"),
        (lambda: Llama3Scaling(high_freq_factor=1.0), rg.ArgumentError, r"high_freq_factor must be above 1\.0"),
        (lambda: rg.nn.half_split_to_interleaved(drawn(7, 2), 2), rg.ShapeError, "got 7 rows and num_heads=2"),
        (lambda: rg.nn.interleaved_to_half_split(drawn(8, 2), 2, 6), rg.ShapeError, "the 4 features of a head: got 6"),
    ],
)
def test_bad_arguments(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("q", "positions", "error", "message"),
    [
        (torch.zeros(5, 4), torch.zeros(5), rg.KindError, r"positions must be an int64 tensor: got float32 \(5,\)"),
        (torch.zeros(5, 4), torch.zeros(4, dtype=torch.int64), rg.ShapeError, r"positions must be \(5,\) or .*\(4,\)"),
        (torch.zeros(2, 1, 5, 4), torch.zeros(3, 5, dtype=torch.int64), rg.ShapeError, r"or \(2, 5\).*got \(3, 5\)"),
        (torch.zeros(5, 3), torch.arange(5), rg.ShapeError, r"at least dim = 4 features a head: got \(5, 3\)"),
        (torch.zeros(5, 4, dtype=torch.int64), torch.arange(5), rg.KindError, "q must be a floating-point tensor"),
    ],
)
def test_bad_operands(q: Tensor, positions: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RotaryEmbedding(4)(q, q, positions)

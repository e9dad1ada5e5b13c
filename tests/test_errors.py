"""Bad input: every error states the rule, what was given and the repair, before anything is computed or drawn."""

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard import ArgumentError, KindError, RegardError, ShapeError, UnsupportedError
from regard._errors import describe

B, H, HKV, LQ, LK, D, DV = 2, 6, 3, 5, 7, 4, 3


Q, K, V = torch.randn(B, H, LQ, D), torch.randn(B, HKV, LK, D), torch.randn(B, HKV, LK, DV)


def attend(**changes: Any) -> Tensor:
    arguments: dict[str, Any] = {"q": Q, "k": K, "v": V, "dropout_p": 0.5}
    return rg.attention(**arguments | changes)


IDS = torch.zeros(LK, dtype=torch.int64)
BOOLS = torch.ones(LQ, LK, dtype=torch.bool)
EVERY: list[tuple[str, type[RegardError], str, dict[str, Any]]] = [
    # operands
    (
        "lengths",
        ShapeError,
        r"k and v must have the same number of tokens.*k float32 \(2, 3, 7, 4\)",
        {"v": V[:, :, :6]},
    ),
    (
        "features",
        ShapeError,
        r"q and k must have the same number of features.*q float32 \(2, 6, 5, 3\)",
        {"q": Q[..., :3]},
    ),
    ("heads", ShapeError, r"H % Hkv must be 0: got H = 5 and Hkv = 3", {"q": Q[:, :5]}),
    ("no-kv-heads", ShapeError, r"H % Hkv must be 0: got H = 6 and Hkv = 0", {"k": K[:, :0], "v": V[:, :0]}),
    ("kv-heads", ShapeError, r"k and v must have the same number of heads", {"v": V[:, :1]}),
    (
        "lead",
        ShapeError,
        r"dims before heads must broadcast.*k float32 \(3, 3, 7, 4\)",
        {"k": K[:1].expand(3, -1, -1, -1)},
    ),
    ("1-D", ShapeError, r"q must be .*\(tokens, features\): got q float32 \(4,\)", {"q": Q[0, 0, 0]}),
    ("0-D", ShapeError, r"v must be .*\(tokens, features\): .*v float32 \(\)", {"v": torch.tensor(1.0)}),
    ("array", KindError, r"must be tensors: got q array.*torch.as_tensor", {"q": Q.numpy()}),
    ("list", KindError, r"must be tensors: got k \[1, 2\]. Convert arrays", {"k": [1, 2]}),
    ("missing", KindError, r"must be tensors: got v None", {"v": None}),
    (
        "int",
        KindError,
        r"float32, bfloat16, float16 or float64: got q int32.*\.to\(dtype\)",
        {"q": Q.int(), "k": K.int(), "v": V.int()},
    ),
    (
        "complex",
        KindError,
        r"or float64: got q complex64",
        {"q": Q.to(torch.complex64), "k": K.to(torch.complex64), "v": V.to(torch.complex64)},
    ),
    ("mixed-dtypes", KindError, r"share one dtype: got q float32 .*k float16 .*\.to\(dtype\)", {"k": K.half()}),
    ("mixed-double", KindError, r"share one dtype: got q float64", {"q": Q.double()}),
    (
        "devices",
        ArgumentError,
        r"on one device: .*k float32 \(2, 3, 7, 4\) on meta.*\.to\(device\)",
        {"k": K.to("meta")},
    ),
    # numbers
    ("scale-nan", ArgumentError, r"scale must be finite: got nan", {"scale": math.nan}),
    ("scale-inf", ArgumentError, r"scale must be finite: got -inf", {"scale": -math.inf}),
    ("scale-text", KindError, r"scale must be a number or None \(1/√D\): got 'auto'", {"scale": "auto"}),
    ("scale-tensor", KindError, r"scale must be a number or None .*: got float32 \(\)", {"scale": torch.tensor(1.0)}),
    ("scale-bool", KindError, r"scale must be a number", {"scale": True}),
    ("dropout-one", ArgumentError, r"dropout_p must be at least 0 and below 1: got 1.0", {"dropout_p": 1.0}),
    ("dropout-negative", ArgumentError, r"dropout_p must be at least 0 and below 1: got -0.1", {"dropout_p": -0.1}),
    ("dropout-nan", ArgumentError, r"dropout_p must be at least 0 and below 1: got nan", {"dropout_p": math.nan}),
    ("dropout-text", KindError, r"dropout_p must be a number: got 'x'", {"dropout_p": "x"}),
    ("dropout-bool", KindError, r"dropout_p must be a number: got True", {"dropout_p": True}),
    # mask=
    (
        "mask-bool-tensor",
        KindError,
        r"not a tensor: got bool \(5, 7\).*Dense\(tensor\), where True means may attend",
        {"mask": BOOLS},
    ),
    ("mask-opposite", KindError, r"MultiheadAttention's masks mean the opposite: Dense\(~tensor\)", {"mask": BOOLS}),
    (
        "mask-float-tensor",
        KindError,
        r"a float tensor is added to the scores with score_mod=Bias",
        {"mask": BOOLS.float()},
    ),
    (
        "mask-function",
        KindError,
        r"got <function .*becomes one with Predicate\(fn\)",
        {"mask": lambda b, h, q, k: q >= k},
    ),
    ("mask-class", KindError, r"a mask such as Causal\(\)", {"mask": rg.Causal}),
    ("mask-text", KindError, r"a mask such as Causal\(\) or Dense\(tensor\): got 'causal'", {"mask": "causal"}),
    ("mask-list", KindError, r"got \[Causal\(\)\]", {"mask": [rg.Causal()]}),
    # masks that do not fit the call
    (
        "ids-short",
        ShapeError,
        r"Document needs an id for each of the 7 positions.*length 6. Give the ids of the whole",
        {"mask": rg.Document(IDS[:6])},
    ),
    ("ids-short-inside", ShapeError, r"Document needs an id", {"mask": rg.Causal() & ~rg.Document(IDS[:6])}),
    (
        "ids-batch",
        ShapeError,
        r"Document's ids is written for a batch of 3, but the call has .* of 2",
        {"mask": rg.Document(IDS.expand(3, -1))},
    ),
    (
        "ids-crossed",
        ShapeError,
        r"goes by position, and 5 queries over 7 keys.*q_positions=torch.arange\(q_len\)",
        {"mask": rg.Document(IDS[:5], IDS)},
    ),
    (
        "ids-device",
        ArgumentError,
        r"Document's ids must be on the device of q, k and v \(cpu\).*meta.*\.to\('cpu'\)",
        {"mask": rg.Document(IDS).to("meta")},
    ),
    ("padding-batch", ShapeError, r"Padding is written for a batch of 3.*Give one row", {"mask": rg.Padding(IDS[:3])}),
    (
        "padding-device",
        ArgumentError,
        r"Padding's lengths must be on the device",
        {"mask": rg.Padding(IDS[:2]).to("meta")},
    ),
    (
        "valid-columns",
        ShapeError,
        r"must have k_len = 7 columns: got \(1, 6\)",
        {"mask": rg.Padding.from_valid(BOOLS[:1, :6])},
    ),
    (
        "valid-batch",
        ShapeError,
        r"from_valid's tensor is written for a batch of 5",
        {"mask": rg.Padding.from_valid(BOOLS)},
    ),
    (
        "dense-rows",
        ShapeError,
        r"Dense must broadcast to .* = \(2, 6, 5, 7\): got \(4, 7\)",
        {"mask": rg.Dense(BOOLS[:4])},
    ),
    ("dense-heads", ShapeError, r"got \(3, 5, 7\). H counts query heads", {"mask": rg.Dense(BOOLS.expand(3, -1, -1))}),
    (
        "dense-device",
        ArgumentError,
        r"Dense's tensor must be on the device .*\.to\('cpu'\)",
        {"mask": rg.Dense(BOOLS).to("meta")},
    ),
    # score_mod=
    (
        "mod-function",
        KindError,
        r"one score change.*becomes one with ScoreMod\(fn\)",
        {"score_mod": lambda s, b, h, q, k: s},
    ),
    (
        "mod-tensor",
        KindError,
        r"got float32 \(5, 7\).*a float tensor with Bias\(tensor\)",
        {"score_mod": BOOLS.float()},
    ),
    (
        "mod-in-list",
        KindError,
        r"or a list of them: got float32 \(5, 7\)",
        {"score_mod": [rg.Softcap(1.0), BOOLS.float()]},
    ),
    ("mod-mask", KindError, r"one score change.*got Causal\(\)", {"score_mod": rg.Causal()}),
    (
        "slopes",
        ShapeError,
        r"Alibi has 3 slopes, but the call has 6 query heads",
        {"score_mod": rg.Alibi(torch.ones(HKV))},
    ),
    (
        "slopes-device",
        ArgumentError,
        r"Alibi's slopes must be on the device .*\.to\('cpu'\)",
        {"score_mod": rg.Alibi(torch.ones(H, device="meta"))},
    ),
    (
        "bias",
        ShapeError,
        r"Bias must broadcast to .* = \(2, 6, 5, 7\): got \(3, 5, 7\)",
        {"score_mod": rg.Bias(torch.ones(3, 5, 7))},
    ),
    (
        "bias-device",
        ArgumentError,
        r"Bias must be on the device",
        {"score_mod": rg.Bias(torch.ones(5, 7, device="meta"))},
    ),
    ("relative-bias", ShapeError, r"RelativeBias has 3 heads, but the call has 6", {"score_mod": rg.RelativeBias(3)}),
    # sinks=
    (
        "sinks-shape",
        ShapeError,
        r"sinks must be \(H,\) = \(6,\), one logit per query head: got \(3,\)",
        {"sinks": torch.ones(HKV)},
    ),
    ("sinks-rank", ShapeError, r"sinks must be \(H,\) = \(6,\).*got \(6, 1\)", {"sinks": torch.ones(H, 1)}),
    ("sinks-int", KindError, r"sinks must be a float tensor.*got int64 \(6,\)", {"sinks": torch.ones(H).long()}),
    ("sinks-list", KindError, r"sinks must be a float tensor.*got \[0.0\]", {"sinks": [0.0]}),
    (
        "sinks-device",
        ArgumentError,
        r"sinks must be on the device .*meta.*\.to\(device\)",
        {"sinks": torch.ones(H, device="meta")},
    ),
    # positions
    (
        "positions-length",
        ShapeError,
        r"q_positions must be \(5,\) or \(2, 5\), one position per token: got \(7,\)",
        {"q_positions": IDS},
    ),
    (
        "positions-batch",
        ShapeError,
        r"k_positions must be \(7,\) or \(2, 7\).*got \(3, 7\)",
        {"k_positions": IDS.expand(3, -1)},
    ),
    ("positions-rank", ShapeError, r"k_positions must be .*got \(1, 1, 7\)", {"k_positions": IDS[None, None]}),
    (
        "positions-float",
        KindError,
        r"q_positions must be an int64 tensor: got float32 \(5,\). .*\.long\(\)",
        {"q_positions": torch.ones(LQ)},
    ),
    (
        "positions-int32",
        KindError,
        r"k_positions must be an int64 tensor: got int32 \(7,\)",
        {"k_positions": IDS.int()},
    ),
    ("positions-list", KindError, r"q_positions must be an int64 tensor: got \[0, 1\]", {"q_positions": [0, 1]}),
    (
        "positions-device",
        ArgumentError,
        r"k_positions must be on the device .*\.to\('cpu'\)",
        {"k_positions": IDS.to("meta")},
    ),
    # backend=
    (
        "backend-unknown",
        ArgumentError,
        r"'native', 'torch', 'flex', 'blockwise', 'reference', or None .*: got 'flash'",
        {"backend": "flash"},
    ),
    ("backend-kind", ArgumentError, r"backend must be one of .*: got \['torch'\]", {"backend": ["torch"]}),
    (
        "backend-refuses",
        UnsupportedError,
        r"backend='torch' cannot do this call: it .*Leave backend=None",
        {"backend": "torch"},
    ),
]


@pytest.mark.parametrize(("error", "message", "changes"), [case[1:] for case in EVERY], ids=[case[0] for case in EVERY])
def test_bad_input_to_attention(error: type[RegardError], message: str, changes: dict[str, Any]) -> None:
    state = torch.get_rng_state()
    with pytest.raises(error, match=message) as caught:
        attend(**changes)
    assert isinstance(caught.value, (ValueError, TypeError))
    assert torch.get_rng_state().equal(state), "a call that raises draws no random number"


def test_the_call_these_errors_are_made_from_is_a_good_one() -> None:
    state = torch.get_rng_state()
    assert attend().shape == (B, H, LQ, DV)
    assert not torch.get_rng_state().equal(state)


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case[0])
def test_nothing_is_computed_first(case: tuple[str, type[RegardError], str, dict[str, Any]]) -> None:
    class NoProducts(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert func not in (Tensor.matmul, torch.matmul, torch.bmm, torch.exp, torch.softmax), func
            return func(*args, **(kwargs or {}))

    with NoProducts(), pytest.raises(case[1]):
        attend(**case[3])


BUILT: list[tuple[type[RegardError], str, Callable[[], object]]] = [
    (ArgumentError, r"SlidingWindow's left must be at least 0: got -1", lambda: rg.SlidingWindow(-1)),
    (ArgumentError, r"SlidingWindow's right must be at least 0: got -2", lambda: rg.SlidingWindow(1, -2)),
    (KindError, r"SlidingWindow's left must be an int: got 1.5", lambda: rg.SlidingWindow(1.5)),  # type: ignore[arg-type]
    (KindError, r"SlidingWindow's left must be an int: got True", lambda: rg.SlidingWindow(True)),
    (ArgumentError, r"of_width's width must be at least 1: got 0", lambda: rg.SlidingWindow.of_width(0)),
    (ArgumentError, r"Prefix's length must be at least 0: got -1", lambda: rg.Prefix(-1)),
    (ArgumentError, r"right must be at most 2\*\*62, as positions are int64", lambda: rg.SlidingWindow(0, sys.maxsize)),
    (ArgumentError, r"Chunked's size must be at least 1: got 0", lambda: rg.Chunked(0)),
    (ArgumentError, r"Dilated's step must be at least 1: got 0", lambda: rg.Dilated(0)),
    (KindError, r"ids must be an integer tensor: got \[0, 1\]", lambda: rg.Document([0, 1])),  # type: ignore[arg-type]
    (KindError, r"Document's k_ids must be an integer tensor: got float32", lambda: rg.Document(IDS, IDS.float())),
    (ShapeError, r"Document's ids must be \(L,\) or \(B, L\): got \(1, 1, 7\)", lambda: rg.Document(IDS[None, None])),
    (ArgumentError, r"from_lengths takes non-negative ints.*got \[2, -1\]", lambda: rg.Document.from_lengths([2, -1])),
    (ArgumentError, r"from_lengths takes non-negative ints.*got \[0.5\]", lambda: rg.Document.from_lengths([0.5])),  # type: ignore[list-item]
    (ArgumentError, r"from_lengths takes .*got int64 \(1, 7\)", lambda: rg.Document.from_lengths(IDS[None])),
    (KindError, r"from_cu_seqlens takes a 1-D integer tensor", lambda: rg.Document.from_cu_seqlens(torch.ones(2))),
    (ArgumentError, r"start with 0: got \[1, 2\]", lambda: rg.Document.from_cu_seqlens(torch.tensor([1, 2]))),
    (ArgumentError, r"never decrease: got \[0, 2, 1\]", lambda: rg.Document.from_cu_seqlens(torch.tensor([0, 2, 1]))),
    (KindError, r"Padding takes an integer tensor .*Padding.from_valid\(mask\)", lambda: rg.Padding(BOOLS)),
    (ShapeError, r"Padding's lengths must be \(B,\): got \(1, 7\)", lambda: rg.Padding(IDS[None])),
    (KindError, r"True = a real token: got int64.*\.bool\(\)", lambda: rg.Padding.from_valid(IDS[None])),
    (ShapeError, r"from_valid takes \(B, k_len\): got \(7,\)", lambda: rg.Padding.from_valid(BOOLS[0])),
    (
        KindError,
        r"True = may attend: got float32 .*score_mod=Bias\(tensor\).*Dense\(~mask\)",
        lambda: rg.Dense(BOOLS.float()),
    ),
    (KindError, r"Dense takes a bool tensor, True = may attend: got int32", lambda: rg.Dense(BOOLS.int())),
    (ShapeError, r"has at most 4 dims: got 5", lambda: rg.Dense(BOOLS[None, None, None])),
    (KindError, r"Predicate takes a function fn\(b, h, q, k\)", lambda: rg.Predicate(3)),  # type: ignore[arg-type]
    (
        KindError,
        r"must return a bool tensor, True = may attend: got int64",
        lambda: rg.Predicate(lambda b, h, q, k: q).dense(2, 2),
    ),
    (ArgumentError, r"q_len is a size and must be at least 0: got -1", lambda: rg.Causal().dense(-1, 2)),
    (KindError, r"k_len is a size and must be an int: got 2.0", lambda: rg.Causal().show(2, 2.0)),  # type: ignore[arg-type]
    (ArgumentError, r"batch is a size and must be at least 0: got -1", lambda: rg.Causal().dense(2, 2, batch=-1)),
    (ShapeError, r"needs an id for each of the 8 positions", lambda: rg.Document(IDS).dense(8, 8)),
    (ShapeError, r"needs an id for each of the 8 positions", lambda: rg.Document(IDS).blocks(8, 8)),
    (ArgumentError, r"cap must be positive and finite: got 0.0", lambda: rg.Softcap(0.0)),
    (ArgumentError, r"cap must be positive and finite: got nan", lambda: rg.Softcap(math.nan)),
    (KindError, r"Softcap's cap must be a number: got 'x'", lambda: rg.Softcap("x")),  # type: ignore[arg-type]
    (KindError, r"Alibi takes a float tensor of slopes, one per query head: got int64", lambda: rg.Alibi(IDS)),
    (ShapeError, r"Alibi's slopes must be \(H,\), one per query head: got \(5, 7\)", lambda: rg.Alibi(BOOLS.float())),
    (ArgumentError, r"for_heads takes a positive number of heads: got 0", lambda: rg.Alibi.for_heads(0)),
    (KindError, r"added to the scores: got bool .*mask=Dense\(tensor\)", lambda: rg.Bias(BOOLS)),
    (ShapeError, r"Bias broadcasts .* at most 4 dims: got 5", lambda: rg.Bias(torch.ones(1, 1, 1, 1, 1))),
    (ArgumentError, r"RelativeBias needs .*even number of buckets.*buckets=3", lambda: rg.RelativeBias(4, buckets=3)),
    (KindError, r"ScoreMod takes a function fn\(s, b, h, q, k\)", lambda: rg.ScoreMod(3)),  # type: ignore[arg-type]
    (
        KindError,
        r"must return a float tensor of scores: got bool",
        lambda: attend(score_mod=rg.ScoreMod(lambda s, b, h, q, k: s > 0)),
    ),
    (
        ShapeError,
        r"must keep the shape of its scores",
        lambda: attend(score_mod=rg.ScoreMod(lambda s, b, h, q, k: s[..., None])),
    ),
]


@pytest.mark.parametrize(("error", "message", "build"), BUILT, ids=[case[1][:48] for case in BUILT])
def test_bad_values(error: type[RegardError], message: str, build: Callable[[], object]) -> None:
    with pytest.raises(error, match=message):
        build()


def test_unsupported_error_holds_the_reasons() -> None:
    with pytest.raises(UnsupportedError) as caught:
        attend(backend="torch")
    assert caught.value.reasons
    assert all(reason in str(caught.value) for reason in caught.value.reasons)


def test_errors_are_also_pythons_own() -> None:
    assert issubclass(ShapeError, ValueError)
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(UnsupportedError, ValueError)
    assert issubclass(rg.StaleError, ValueError)
    assert issubclass(KindError, TypeError)


def test_describe_is_short() -> None:
    assert describe(torch.ones(2, 3, dtype=torch.bfloat16)) == "bfloat16 (2, 3)"
    assert describe(torch.ones(2, device="meta")) == "float32 (2,) on meta"
    assert describe("a\nb") == "'a\\nb'"
    assert len(describe(list(range(1000)))) == 80

"""Every backend, on every case that it says it can do, gives the oracle's out, lse and gradients.

Cases are drawn from what the backend declares, so a declaration cannot be larger than what is tested. What is not
declared must be refused, for that reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from traceback import format_exception

import pytest
import torch
from torch import Tensor

from regard._call import DTYPES, Call
from regard._dispatch import backend, backend_names, choose
from regard._errors import UnsupportedError
from regard.backends.base import Backend, Capabilities
from regard.backends.blockwise import plan
from regard.backends.native import library
from regard.masks import Everything
from regard.testing.cases import Case, make_case
from regard.testing.tolerance import Expected, assert_close, expect
from regard.weights import AttentionWeights

CASES = 2000
CHUNK = 50
EVERY = [name for name in backend_names() if name != "native"] + [
    f"native {v}".strip() for v in library.supported() or ("",)
]
"""The backends, and `native` in each variant that this processor can run."""


@pytest.fixture
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of one of `EVERY`; its variant is in use."""
    chosen, _, variant = str(request.param).partition(" ")
    if variant:
        monkeypatch.setattr(library, "variant", lambda: variant)
    return chosen


def drawn_from(backend: Backend) -> Capabilities:
    """What cases are drawn from; backends that claim the same draw the same cases and share the oracle's answers."""
    can = backend.capabilities
    return Capabilities(
        dtypes=can.dtypes, masks=can.masks, score_mods=can.score_mods, sinks=can.sinks, dropout=can.dropout
    )


@lru_cache(maxsize=2 * CHUNK)
def prepared(seed: int, capabilities: Capabilities) -> tuple[Case, Call]:
    case = make_case(seed, capabilities)
    return case, case.call()


@lru_cache(maxsize=2 * CHUNK)
def answer(seed: int, capabilities: Capabilities, lse_counts: bool) -> dict[str, Expected]:
    case, call = prepared(seed, capabilities)
    dlse = case.dlse if lse_counts else None
    return expect(**case.operands, **case.arguments, seed=call.seed, dout=case.dout, dlse=dlse, wrt=case.wrt)


def missing_features(backend: Backend, call: Call) -> list[str]:
    """A word for everything that the call uses and the backend does not declare."""
    can = backend.capabilities
    used = {
        "takes": call.q.dtype not in can.dtypes,
        "mask": not can.masks and not isinstance(call.mask, Everything),
        "score change": not can.score_mods and bool(call.score_mods),
        "sinks": not can.sinks and call.sinks is not None,
        "dropout": not can.dropout and call.dropout_p > 0,
        "lse": call.wants_lse and not (can.lse and (can.lse_gradient or not call.needs_grad)),
        "backward": bool(can.gradients) and "cpu" not in can.gradients and call.needs_grad,
    }
    return [word for word, lacking in used.items() if lacking]


def outcome(backend: Backend, case: Case, call: Call) -> dict[str, Tensor]:
    """Everything that a backend gives for a call: out, lse if it is wanted, and the gradients if they are."""
    result = backend.run(call)
    found, cotangents = {"out": call.restore(result.out)}, {"out": case.dout, "lse": case.dlse}
    if call.wants_lse:
        assert result.lse is not None
        found["lse"] = call.restore(result.lse)
        found["weights"] = AttentionWeights(call, result.lse).dense()
        assert result.lse.dtype == call.accumulation_dtype, f"{case}: lse is {result.lse.dtype}"
    assert result.out.dtype == call.q.dtype, f"{case}: out is {result.out.dtype}"
    if torch.is_grad_enabled():
        given = {name: x for name, x in found.items() if x.requires_grad and name in cotangents}
        grads = torch.autograd.grad(
            list(given.values()),
            list(case.wrt.values()),
            [cotangents[name] for name in given],
            materialize_grads=True,
            retain_graph=True,
        )
        found |= {f"d{name}": grad for name, grad in zip(case.wrt, grads, strict=True)}
    return found


def refusal(name: str, call: Call) -> tuple[str, ...] | None:
    """The reasons with which a backend asked for by name refuses a call; None if it is the one that will run."""
    try:
        assert choose(call, name) is backend(name)
    except UnsupportedError as refused:
        return refused.reasons or ("",)
    return None


def check(name: str, seed: int) -> bool:
    """Hold one backend to one case: in full, and where it refuses that, without what it refused. True if it ran."""
    asked = backend(name)
    case, call = prepared(seed, drawn_from(asked))
    ran: set[tuple[bool, bool]] = set()
    for grad, wants_lse in ((True, True), (True, False), (False, True), (False, False)):
        # What ran with a gradient runs without, and what ran with lse runs without.
        if {(True, True), (grad, True)} & ran:
            continue
        with torch.set_grad_enabled(grad):
            tried = call.with_(wants_lse=wants_lse)
            lacking = missing_features(asked, tried)
            reasons = refusal(name, tried)
            if reasons is not None:
                assert all(len(reason.split()) >= 3 for reason in reasons), f"{case}: refused with {reasons}"
                for word in lacking:
                    assert any(word in reason for reason in reasons), f"{case}: no word of {word!r} in {reasons}"
                continue
            assert not lacking, f"{case}: not refused, though {name} declares no {lacking}"
            found = outcome(asked, case, tried)
            assert_close(found, answer(seed, drawn_from(asked), grad and wants_lse), f"{name}, lse={wants_lse}, {case}")
            ran.add((grad, wants_lse))
    return bool(ran)


@pytest.mark.parametrize("name", EVERY, indirect=True)
@pytest.mark.parametrize("chunk", range(CASES // CHUNK))
def test_agrees_with_the_oracle(name: str, chunk: int) -> None:
    hold(name, range(chunk * CHUNK, (chunk + 1) * CHUNK))


def hold(name: str, seeds: Iterable[int]) -> None:
    """Hold one backend to many cases and tell of the first few that fail."""
    failures = []
    for seed in seeds:
        try:
            check(name, seed)
        except Exception as wrong:
            failures.append(f"{make_case(seed, drawn_from(backend(name)))}\n{''.join(format_exception(wrong)[-2:])}")
    assert not failures, f"{len(failures)} cases fail:\n\n" + "\n\n".join(failures[:5])


@pytest.mark.parametrize("chunk", range(4))
def test_blockwise_agrees_in_tiny_blocks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks of 3 x 2 and tiles of a few pairs, small cases cross dozens of block, tile and step borders."""
    monkeypatch.setattr(plan, "BLOCK", (3, 2))
    monkeypatch.setattr(plan, "tile_elements", lambda device: 48)
    monkeypatch.setattr(plan, "_LEAST_COLUMNS", 4)
    seeds = range(chunk * CHUNK, (chunk + 1) * CHUNK)
    hold("blockwise", [seed for seed in seeds if max(x.shape[-2] for x in make_case(seed).operands.values()) < 20])


@pytest.mark.parametrize("name", ["reference", "blockwise"], indirect=True)
def test_refuses_nothing(name: str) -> None:
    """These two do everything of the contract."""
    for seed in range(0, CASES, 10):
        case = make_case(seed)
        assert backend(name).unsupported(case.call()) == [], str(case)


@pytest.mark.parametrize("name", EVERY, indirect=True)
def test_declares_no_less_than_it_can(name: str) -> None:
    """A backend that refused everything would agree with anything: a fair share of its cases must run."""
    ran = sum(check(name, seed) for seed in range(150))
    assert ran >= 30, f"{name} ran {ran} of 150 cases"


def test_cases_reach_everything() -> None:
    """The generator makes each kind of case many times over."""
    seen: dict[str, int] = {}
    for seed in range(CASES):
        case = make_case(seed)
        call = case.call()
        visible = call.mask.over(call.frame).expand(*call.q.shape[:3], -1)
        parts = repr(call.mask)
        facts = {
            **{f"dtype {dtype}": call.q.dtype == dtype for dtype in DTYPES},
            **{f"mask {word}": word in parts for word in MASK_WORDS},
            **{f"score change {word}": word in repr(call.score_mods) for word in SCORE_WORDS},
            **{f"layout {word}": word in case.layouts.values() for word in LAYOUT_WORDS},
            **{f"{rank} dims": rank in (x.ndim for x in case.operands.values()) for rank in (2, 3, 4, 5)},
            "mixed ranks": len({x.ndim for x in case.operands.values()}) > 1,
            "grouped heads": call.group > 1,
            "one key head for several": call.k.shape[1] == 1 < call.q.shape[1],
            "more queries": call.q.shape[2] > call.k.shape[2] > 0,
            "more keys": call.k.shape[2] > call.q.shape[2] > 0,
            "other value width": call.q.shape[3] != call.v.shape[3],
            "several blocks": call.q.shape[2] > 64 and call.k.shape[2] > 64,
            "no query": call.q.shape[2] == 0,
            "no key": call.k.shape[2] == 0,
            "no batch": call.q.shape[0] == 0,
            "empty rows": not bool(visible.any(-1).all()),
            "nothing empty": bool(visible.any(-1).all()),
            "sinks": call.sinks is not None,
            "dropout": call.seed is not None,
            "three score changes": len(call.score_mods) == 3,
            "positions": not call.frame.by_default,
            "a position a batch entry": any(
                p is not None and p.shape[0] > 1 for p in (call.frame.q_positions, call.frame.k_positions)
            ),
            "not-a-number nobody sees": not all(bool(x.isfinite().all()) for x in case.operands.values()),
        }
        for fact, holds in facts.items():
            seen[fact] = seen.get(fact, 0) + holds
    rare = {fact: count for fact, count in seen.items() if count < 10}
    assert not rare, f"too few cases of {rare}"


MASK_WORDS = (
    "Causal", "SlidingWindow", "Prefix", "Chunked", "Dilated", "Document", "Padding(", "Padding.from_valid", "Dense",
    "SumIs", "HeadReach", "Everything", "Nothing", " & ", " | ", "~",
)  # fmt: skip
SCORE_WORDS = ("Softcap", "Alibi", "Bias(", "RelativeBias", "HeadGate", "DistanceGate")
LAYOUT_WORDS = ("contiguous", "every second feature", "narrowed", "features first", "expanded", "heads last")

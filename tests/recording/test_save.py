"""Records on disk: what comes back, what is refused, and that nothing hostile gets further than an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import regard as rg
from regard.recording import Layer, Run

L = 9


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def valid() -> Tensor:
    return torch.arange(L) >= torch.tensor([[0], [3]])


def alibi() -> rg.Alibi:
    return rg.Alibi.for_heads(4)


def relative() -> rg.RelativeBias:
    made = rg.RelativeBias(4, 8, 16, bidirectional=False)
    torch.nn.init.normal_(made.table)
    return made


CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "causal": lambda: {"mask": rg.Causal()},
    "everything": dict,
    "window, prefix, padding": lambda: {
        "mask": (rg.SlidingWindow(3, None) | rg.Prefix(2)) & rg.Padding.from_valid(valid()) & ~rg.Nothing()
    },
    "chunked and not dilated": lambda: {"mask": rg.Chunked(4) & ~rg.Dilated(3)},
    "documents": lambda: {"mask": rg.Causal() & rg.Document((torch.arange(L) // 4)[None].expand(2, -1))},
    "lengths": lambda: {"mask": rg.Padding(torch.tensor([9, 4]))},
    "dense": lambda: {"mask": rg.Dense(normal(2, 1, L, L) > 0)},
    "a function": lambda: {"mask": rg.Causal() & rg.Predicate(lambda b, h, q, k: (q - k) % (h + 1) == 0)},
    "softcap, alibi": lambda: {"score_mod": [rg.Softcap(2.5), alibi()]},
    "bias": lambda: {"score_mod": rg.Bias(normal(4, L, L)), "scale": 0.3},
    "relative bias": lambda: {"score_mod": relative()},
    "sinks": lambda: {"sinks": torch.tensor([0.1, 2.0, -1.0, 0.0]), "mask": rg.Causal()},
    "positions": lambda: {
        "mask": rg.Causal(),
        "q_positions": torch.arange(L)[None] + torch.tensor([[0], [2]]),
        "k_positions": torch.arange(L).flip(0),
    },
}


def recorded(dtype: torch.dtype = torch.float32, **keywords: Any) -> rg.Record:
    q, k = normal(2, 4, L, 8).to(dtype), normal(2, 2, L, 8).to(dtype)
    seen = rg.inspect(q, k, k, backend="reference", **keywords)
    call = seen.weights._call
    layer = Layer(
        "layers.0.attention",
        3,
        "self",
        (0, 1, 5, 7),
        q,
        k,
        seen.lse,
        call.mask,
        call.score_mods,
        call.scale,
        call.sinks,
        call.frame.q_positions,
        call.frame.k_positions,
        normal(2, 4, L).abs(),
    )
    words = [["<|im_start|>", "</script>", "", "\0", "猫", "مرحبا", "🙂", "a" * 10_000, "\u2028"]] * 2
    ids = torch.arange(2 * L).view(2, L)
    return rg.Record({"model": "m", "dtype": dtype}, {"x": "y"}, (Run((layer,), words, None, ids),))


@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_comes_back(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    rec = recorded(dtype, **CALLS[name]())
    loaded = rg.load_record(rec.save(tmp_path / "rec"))
    one, other = loaded.layers[0], rec.layers[0]
    assert (one.name, one.index, one.kind, one.heads) == (other.name, other.index, other.kind, other.heads)
    assert loaded.tokens == rec.tokens
    assert torch.equal(loaded.runs[0].ids, rec.runs[0].ids)  # type: ignore[arg-type]
    torch.testing.assert_close(one.weights.dense(), other.weights.dense())
    assert (loaded.meta["model"], loaded.meta["dtype"], loaded.skipped) == ("m", str(dtype), {"x": "y"})
    assert one.mask.equal(other.mask) or name == "a function"
    assert ("notes" in loaded.meta) == (name == "a function")


def test_a_recording_of_a_model_comes_back(tmp_path: Path) -> None:
    layer = rg.nn.MultiHeadAttention(8, 8, 32, 0.0, num_heads=4)
    caches = rg.cache.FullCache()
    with torch.no_grad(), rg.record(layer) as rec:
        layer(normal(1, 6, 8), cache=caches)
        layer(normal(1, 1, 8), cache=caches)
    loaded = rg.load_record(rec.save(tmp_path / "deep" / "rec"))
    torch.testing.assert_close(loaded.layers[0].weights.dense(), rec.layers[0].weights.dense())
    assert loaded.head_scores().mean["entropy"] == pytest.approx(rec.head_scores().mean["entropy"])


def test_functions_of_scores_are_never_stored(tmp_path: Path) -> None:
    rec = recorded(score_mod=rg.ScoreMod(lambda s, b, h, q, k: s * 2))
    with pytest.raises(rg.RecordError, match="is a function, which is never stored"):
        rec.save(tmp_path / "rec")
    assert not list(tmp_path.iterdir())


def test_a_mask_that_is_a_function_of_too_many_pairs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regard.recording.serial.MAX_BITS", 80)
    with pytest.raises(rg.RecordError, match="something of 9 × 9 pairs"):
        recorded(mask=rg.Predicate(lambda b, h, q, k: q >= k)).save(tmp_path / "rec")


def test_a_record_overwrites_only_records(tmp_path: Path) -> None:
    rec = recorded()
    rec.save(tmp_path / "rec")
    with pytest.raises(rg.RecordError, match="is there already"):
        rec.save(tmp_path / "rec")
    rec.save(tmp_path / "rec", overwrite=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(rg.RecordError, match="is there already"):
        rec.save(tmp_path / "mine", overwrite=True)


def test_a_foreign_logsumexp_is_not_trusted(tmp_path: Path) -> None:
    path = recorded(mask=rg.Causal()).save(tmp_path / "rec")
    change(path, lambda tensors: tensors.update(lse=tensors["lse"] / torch.log(torch.tensor(2.0))))
    with pytest.raises(rg.RecordError, match=r"sum to .* and not to 1: the recorded lse does not belong"):
        rg.load_record(path)
    loaded = rg.load_record(path, recompute_lse=True)
    torch.testing.assert_close(loaded.layers[0].lse, recorded(mask=rg.Causal()).layers[0].lse)


def change(path: Path, how: Callable[[dict[str, Tensor]], object]) -> None:
    file = path / "run-000-layer-000.safetensors"
    tensors = {name: x.clone() for name, x in load_file(file).items()}
    how(tensors)
    save_file(tensors, file)


def edit(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((path / "record.json").read_text())
    how(content)
    (path / "record.json").write_text(json.dumps(content))


def layer_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["runs"][0]["layers"][0]
    return found


def deep(content: dict[str, Any]) -> None:
    for _ in range(60):
        layer_of(content)["mask"] = {"is": "Not", "parts": [layer_of(content)["mask"]]}


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no json": (lambda path: (path / "record.json").unlink(), "is no record: it has no record.json"),
    "broken json": (lambda path: (path / "record.json").write_text("{"), "is damaged"),
    "deep json": (lambda path: (path / "record.json").write_text("[" * 100_000), "is damaged"),
    "nan": (lambda path: (path / "record.json").write_text('{"format": NaN}'), "NaN is no number"),
    "not utf-8": (lambda path: (path / "record.json").write_bytes(b"\xff\xfe"), "is damaged"),
    "a list": (lambda path: (path / "record.json").write_text("[]"), "is no record of regard"),
    "another format": (lambda path: edit(path, lambda c: c.update(format="zip")), "is no record of regard"),
    "a later version": (lambda path: edit(path, lambda c: c.update(version=99)), "record of version 99.*Update regard"),
    "no runs": (lambda path: edit(path, lambda c: c.update(runs=[])), "record of nothing"),
    "runs of text": (lambda path: edit(path, lambda c: c.update(runs="x")), "runs of a record is a list"),
    "tokens of numbers": (lambda path: edit(path, lambda c: c["runs"][0].update(tokens=[[1]])), "list of lists of str"),
    "ragged ids": (lambda path: edit(path, lambda c: c["runs"][0].update(ids=[[1], [1, 2]])), "no table of ids"),
    "huge ids": (lambda path: edit(path, lambda c: c["runs"][0].update(ids=[[10**30]])), "no table of ids"),
    "more layers": (lambda path: edit(path, lambda c: c["runs"][0]["layers"].append({})), "layer-001.* is missing"),
    "a path": (lambda path: edit(path, lambda c: layer_of(c).update(name=["../../etc/passwd"])), "has a name"),
    "a kind": (lambda path: edit(path, lambda c: layer_of(c).update(kind="eval")), "has a name, a number and a kind"),
    "a scale": (lambda path: edit(path, lambda c: layer_of(c).update(scale="1")), "has a scale"),
    "heads": (lambda path: edit(path, lambda c: layer_of(c).update(heads=[1])), "a number for each of 4 heads"),
    "a mask of text": (lambda path: edit(path, lambda c: layer_of(c).update(mask="Causal()")), "no description"),
    "a function as mask": (
        lambda path: edit(path, lambda c: layer_of(c).update(mask={"is": "Predicate", "numbers": ["x"]})),
        "is a 'Predicate', which this version of regard does not know",
    ),
    "wrong numbers": (
        lambda path: edit(path, lambda c: layer_of(c).update(mask={"is": "SlidingWindow", "numbers": ["a", 0]})),
        "a mask of this record is broken",
    ),
    "a tensor that is not there": (
        lambda path: edit(path, lambda c: layer_of(c).update(mask={"is": "Dense", "tensors": ["z"]})),
        "lacks one of its tensors",
    ),
    "a tensor of another use": (
        lambda path: edit(path, lambda c: layer_of(c).update(mask={"is": "Dense", "tensors": ["q"]})),
        "a mask of this record is broken",
    ),
    "intervals of floats": (
        lambda path: edit(
            path, lambda c: layer_of(c).update(mask={"is": "Intervals", "tensors": ["lse", "lse"], "numbers": [9]})
        ),
        "intervals of this record are",
    ),
    "a deep mask": (lambda path: edit(path, deep), "nested more than 40 deep"),
    "a score change": (
        lambda path: edit(path, lambda c: layer_of(c).update(score_mods=[{"is": "Softcap", "numbers": [-1]}])),
        "a score change of this record is broken",
    ),
    "no file": (lambda path: (path / "run-000-layer-000.safetensors").unlink(), "is missing"),
    "a cut file": (
        lambda path: (path / "run-000-layer-000.safetensors").write_bytes(
            (path / "run-000-layer-000.safetensors").read_bytes()[:-100]
        ),
        "is damaged",
    ),
    "a pickle": (lambda path: torch.save({"q": 1}, path / "run-000-layer-000.safetensors"), "is damaged"),
    "a huge header": (
        lambda path: (path / "run-000-layer-000.safetensors").write_bytes(b"\xff" * 64),
        "is damaged",
    ),
    "no lse": (lambda path: change(path, lambda t: t.pop("lse")), "lse missing"),
    "other shapes": (lambda path: change(path, lambda t: t.update(lse=torch.zeros(2, 4, 5))), "lse is torch.float32"),
    "integers": (lambda path: change(path, lambda t: t.update(q=torch.ones(2, 4, L, 8).int())), "of one dtype"),
    "other heads": (lambda path: change(path, lambda t: t.update(k=torch.ones(2, 3, L, 8))), "do not fit together"),
    "positions": (
        lambda path: change(path, lambda t: t.update(k_positions=torch.zeros(3, dtype=torch.int64))),
        "do not fit together",
    ),
    "sinks": (lambda path: change(path, lambda t: t.update(sinks=torch.ones(3))), "do not fit together"),
    "norms": (lambda path: change(path, lambda t: t.update(value_norms=torch.ones(3))), "value_norms is float32"),
    "nan keys": (lambda path: change(path, lambda t: t["k"].fill_(torch.nan)), "and not to 1"),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(mask=rg.Causal()).save(tmp_path_factory.mktemp("records") / "rec")


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damaged_and_hostile_records_are_refused_in_words(name: str, intact: Path, tmp_path: Path) -> None:
    damage, words = DAMAGES[name]
    path = tmp_path / "rec"
    shutil.copytree(intact, path)
    rg.load_record(path)
    damage(path)
    with pytest.raises(rg.RecordError, match=words):
        rg.load_record(path)


def test_a_link_is_not_followed(intact: Path, tmp_path: Path) -> None:
    path = tmp_path / "rec"
    shutil.copytree(intact, path)
    file = path / "run-000-layer-000.safetensors"
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(rg.RecordError, match="is missing"):
        rg.load_record(path)

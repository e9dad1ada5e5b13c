"""Reading a record: everything in it is checked before it is used, and logsumexp against the queries and keys."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from regard._call import DTYPES
from regard._errors import RecordError, RegardError, describe
from regard._inspect import inspect
from regard.recording.disk import mapped
from regard.recording.layer import Kind, Layer
from regard.recording.recorded import Record, Run
from regard.recording.save import FORMAT, JSON, VERSION, layer_file
from regard.recording.serial import read_mask, read_score_mod
from regard.recording.verify import check_lse

_REQUIRED = ("q", "k", "lse")
_FLOATS = ("lse", "value_norms", "sinks")


def load_record(path: str | Path, *, recompute_lse: bool = False) -> Record:
    """Read what `Record.save` wrote, on any machine.

    Tensors are mapped into memory and read page by page, when and where they are looked at. Nothing in a record is
    code. Logsumexp is checked against queries and keys on a sample of every layer's rows.

    Args:
        path: the folder.
        recompute_lse: compute logsumexp anew from queries and keys instead.

    Raises:
        RecordError: no record, one of a later version, one that is damaged or whose parts do not fit together, or a
            logsumexp that does not belong to its queries and keys.
    """
    folder = Path(path)
    content = _content(folder)
    runs = tuple(
        _run(run, number, folder, recompute=recompute_lse) for number, run in enumerate(_list(content, "runs"))
    )
    if not runs or not all(run.layers for run in runs):
        raise RecordError(f"{folder} is a record of nothing.")
    meta = content.get("meta", {})
    skipped = content.get("skipped", {})
    if not isinstance(meta, dict) or not isinstance(skipped, dict):
        raise RecordError(f"meta of {folder} is no table of facts: got {describe(meta)}.")
    notes = [str(one) for one in _list(content, "notes")]
    return Record({**meta, **({"notes": "; ".join(notes)} if notes else {})}, skipped, runs)


def _content(folder: Path) -> dict[str, Any]:
    path = folder / JSON
    if not path.is_file() or path.is_symlink():
        raise RecordError(f"{folder} is no record: it has no {JSON}. Record.save writes a folder that has one.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordError(f"{path} is no record of regard.")
    version = content.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise RecordError(
            f"{folder} is a record of version {describe(version)}, and this regard reads up to {VERSION}. "
            "Update regard."
        )
    return content


def _run(data: object, number: int, folder: Path, *, recompute: bool) -> Run:
    if not isinstance(data, dict):
        raise RecordError(f"run {number} of {folder} is no run: got {describe(data)}.")
    layers = tuple(
        _layer(one, folder / layer_file(number, n), recompute=recompute) for n, one in enumerate(_list(data, "layers"))
    )
    return Run(
        layers,
        _rows(data, "tokens", str),
        _rows(data, "query_tokens", str),
        _ids(data, "ids"),
        _ids(data, "query_ids"),
    )


def _layer(data: object, path: Path, *, recompute: bool) -> Layer:
    from safetensors import SafetensorError

    if not isinstance(data, dict):
        raise RecordError(f"the layer of {path.name} is no layer: got {describe(data)}.")
    if not path.is_file() or path.is_symlink():
        raise RecordError(f"{path} is missing.")
    try:
        tensors = mapped(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error}.") from error
    try:
        layer = _checked(data, tensors)
        if recompute:
            nothing = layer.call.v
            lse = inspect(
                layer.q,
                layer.k,
                nothing,
                mask=layer.mask,
                score_mod=layer.score_mods,
                scale=layer.scale,
                sinks=layer.sinks,
                q_positions=layer.q_positions,
                k_positions=layer.k_positions,
            ).lse
            layer = _checked(data, {**tensors, "lse": lse})
        check_lse(layer)
    except RecordError as error:
        raise RecordError(f"{path.name}: {error}") from error
    except RegardError as error:
        raise RecordError(f"{path.name}: its parts do not fit together: {error}") from error
    return layer


def _checked(data: dict[str, Any], tensors: dict[str, Tensor]) -> Layer:
    """A layer whose parts fit together."""
    name, index, scale = (data.get(key) for key in ("name", "index", "scale"))
    kind: Any = data.get("kind")
    if not isinstance(name, str) or type(index) is not int or kind not in get_args(Kind):
        raise RecordError(f"a layer has a name, a number and a kind: got {name!r}, {index!r}, {kind!r}.")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not math.isfinite(scale):
        raise RecordError(f"a layer has a scale: got {describe(scale)}.")
    lacking = [one for one in _REQUIRED if one not in tensors]
    if lacking:
        raise RecordError(f"a layer has q, k and lse: {' and '.join(lacking)} missing.")
    q, k, lse = (tensors[one] for one in _REQUIRED)
    if q.ndim != 4 or k.ndim != 4 or q.dtype != k.dtype or q.dtype not in DTYPES or q.shape[0] != k.shape[0]:
        raise RecordError(f"queries and keys are (B, H, L, D) of one dtype: got {describe(q)} and {describe(k)}.")
    expected = torch.float64 if q.dtype == torch.float64 else torch.float32
    if lse.shape != q.shape[:3] or lse.dtype != expected:
        raise RecordError(f"lse is {expected} {tuple(q.shape[:3])}: got {describe(lse)}.")
    norms = tensors.get("value_norms")
    if norms is not None and (norms.shape != (*q.shape[:2], k.shape[2]) or norms.dtype != torch.float32):
        raise RecordError(f"value_norms is float32 {(*q.shape[:2], k.shape[2])}: got {describe(norms)}.")
    heads = _list(data, "heads")
    if len(heads) != q.shape[1] or not all(type(head) is int and head >= 0 for head in heads):
        raise RecordError(f"heads has a number for each of {q.shape[1]} heads: got {describe(heads)}.")
    layer = Layer(
        name,
        index,
        kind,
        tuple(heads),
        q,
        k,
        lse,
        read_mask(data.get("mask"), tensors),
        tuple(read_score_mod(one, tensors) for one in _list(data, "score_mods")),
        float(scale),
        tensors.get("sinks"),
        tensors.get("q_positions"),
        tensors.get("k_positions"),
        norms,
    )
    _ = layer.call
    return layer


def _list(data: dict[str, Any], name: str) -> list[Any]:
    found = data.get(name, [])
    if not isinstance(found, list):
        raise RecordError(f"{name} of a record is a list: got {describe(found)}.")
    return found


def _rows(data: dict[str, Any], name: str, kind: type) -> list[list[Any]] | None:
    found = data.get(name)
    if found is None:
        return None
    fits = isinstance(found, list) and all(
        isinstance(row, list) and all(type(one) is kind for one in row) for row in found
    )
    if not fits:
        raise RecordError(f"{name} of a run is a list of lists of {kind.__name__}: got {describe(found)}.")
    rows: list[list[Any]] = found
    return rows


def _ids(data: dict[str, Any], name: str) -> Tensor | None:
    rows = _rows(data, name, int)
    try:
        return None if rows is None else torch.tensor(rows, dtype=torch.int64)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise RecordError(f"{name} of a run is no table of ids: {error}.") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of a record")

"""Writing a record: a folder with ``record.json`` and one safetensors file a layer. Nothing in it is code."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from regard._errors import RecordError
from regard.recording.layer import Layer
from regard.recording.recorded import Run
from regard.recording.serial import Tensors, mask_data, score_mod_data

FORMAT = "regard record"
VERSION = 1
JSON = "record.json"


def layer_file(run: int, layer: int) -> str:
    """The name of a layer's file."""
    return f"run-{run:03}-layer-{layer:03}.safetensors"


def save(
    runs: Sequence[Run], meta: dict[str, Any], skipped: dict[str, str], path: str | Path, *, overwrite: bool
) -> Path:
    """Write a record to the folder ``path``, which appears when all of it is written.

    Raises:
        RecordError: something is there already, or a score change or mask cannot be stored.
    """
    target = Path(path)
    if target.exists() and not (overwrite and (target / JSON).is_file()):
        raise RecordError(
            f"{target} is there already. Save a record where nothing is, or over another record with overwrite=True."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        notes: list[str] = []
        content = {
            "format": FORMAT,
            "version": VERSION,
            "meta": {name: _plain(value) for name, value in meta.items()},
            "skipped": skipped,
            "runs": [_run(run, number, draft, notes) for number, run in enumerate(runs)],
            "notes": sorted(set(notes)),
        }
        (draft / JSON).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        draft.replace(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def _run(run: Run, number: int, folder: Path, notes: list[str]) -> dict[str, Any]:
    return {
        "tokens": run.tokens,
        "query_tokens": run.query_tokens,
        "ids": None if run.ids is None else run.ids.tolist(),
        "query_ids": None if run.query_ids is None else run.query_ids.tolist(),
        "layers": [_layer(layer, folder / layer_file(number, n), notes) for n, layer in enumerate(run.layers)],
    }


def _layer(layer: Layer, path: Path, notes: list[str]) -> dict[str, Any]:
    """Write a layer's tensors and return the rest."""
    from safetensors.torch import save_file

    optional = {
        "sinks": layer.sinks,
        "q_positions": layer.call.frame.q_positions,
        "k_positions": layer.call.frame.k_positions,
        "value_norms": layer.value_norms,
    }
    tensors: dict[str, Tensor] = {"q": layer.q, "k": layer.k, "lse": layer.lse}
    tensors |= {name: x for name, x in optional.items() if x is not None}
    data = {
        "name": layer.name,
        "index": layer.index,
        "kind": layer.kind,
        "heads": list(layer.heads),
        "scale": layer.scale,
        "mask": mask_data(layer.mask, Tensors("mask", tensors), layer.call.frame, notes),
        "score_mods": [
            score_mod_data(mod, Tensors(f"score_mod.{n}", tensors)) for n, mod in enumerate(layer.score_mods)
        ],
    }
    save_file(_apart(tensors), path)
    return data


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors contiguous, and no two in the same memory, as the format wants them."""
    taken: set[int] = set()
    apart = {}
    for name, x in tensors.items():
        x = x.detach().cpu().contiguous()
        place = x.untyped_storage().data_ptr()
        apart[name] = x.clone() if place in taken else x
        taken.add(place)
    return apart


def _plain(value: object) -> object:
    """A fact as JSON holds it."""
    return value if value is None or isinstance(value, str | int | bool) else str(value)

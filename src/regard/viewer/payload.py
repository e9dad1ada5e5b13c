"""A `Subject` as the JSON and the arrays that a page holds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from regard._call import Call
from regard._coordinates import Coordinates
from regard._errors import UnsupportedError
from regard.masks import Everything, Mask
from regard.scores import Alibi, Bias, RelativeBias, ScoreModification, Softcap
from regard.viewer.baked import bake
from regard.viewer.chunks import Chunks, Reference, halves
from regard.viewer.deviation import deviation
from regard.viewer.subject import Layer, Subject

_STRIP_PAIRS = 1 << 24
_LONGEST_TABLE = 1 << 22
Json = dict[str, object]


def describe_subject(subject: Subject, chunks: Chunks) -> Json:
    """The page's JSON of one record; its arrays go to ``chunks``."""
    layers = [describe_layer(layer, chunks) for layer in subject.layers]
    return {**outline(subject), "layers": layers, "deviation": deviation(subject)}


def outline(subject: Subject) -> Json:
    """The JSON of a record without its numbers."""
    return {
        "title": subject.title,
        "tokens": subject.tokens,
        "queryTokens": subject.query_tokens,
        "facts": dict(subject.facts),
        "scores": {
            name: [[x if np.isfinite(x) else None for x in row] for row in rows]
            for name, rows in subject.scores.items()
        },
        "layers": [sizes(layer) for layer in subject.layers],
    }


def sizes(layer: Layer) -> Json:
    """Number, name, heads, rows and columns of a layer."""
    return {
        "index": layer.index,
        "name": layer.name,
        "heads": list(layer.heads),
        "rows": layer.rows,
        "cols": layer.cols,
        "ahead": _ahead(layer.call, layer.entry),
    }


def describe_layer(layer: Layer, chunks: Chunks) -> Json:
    """The JSON of one layer: q and k for the browser to compute with, or maps where it could not."""
    why = inexpressible(layer.call)
    if why is not None:
        return {**sizes(layer), "baked": bake(layer, chunks), "why": why}
    call, b = layer.call, layer.entry
    queries = [_halves(call.q[b, h], chunks) for h in range(call.q.shape[1])]
    keys = [_halves(call.k[b, h], chunks) for h in range(call.k.shape[1])]
    return {
        **sizes(layer),
        "dim": call.q.shape[-1],
        "scale": call.scale,
        "q": queries,
        "k": keys,
        "mask": describe_mask(call, b, chunks),
        "mods": [_modification(mod, call, b, chunks) for mod in call.score_mods],
        "sinks": None if call.sinks is None else call.sinks.detach().double().tolist(),
    }


def inexpressible(call: Call) -> str | None:
    """Why a browser cannot compute these weights from q and k, or None if it can."""
    known = (Softcap, Alibi, RelativeBias, Bias)
    for mod in call.score_mods:
        if not isinstance(mod, known):
            return f"{mod!r} is a Python function"
        if isinstance(mod, (Alibi, RelativeBias)) and _span(call) > _LONGEST_TABLE:
            return f"positions are up to {_span(call)} apart"
    return None


def describe_mask(call: Call, entry: int, chunks: Chunks) -> Json:
    """The mask as nothing, as intervals of columns for each row, or as bits."""
    frame, mask = call.frame, call.mask
    if isinstance(mask, Everything) or not (frame.q_len and frame.k_len):
        return {"kind": "all"}
    rows = mask.intervals(frame)
    if rows is None:
        return {"kind": "bits", "data": _bits(mask, call, entry, chunks)}
    rows = rows.narrow()
    own = entry if rows.start.shape[0] > 1 else 0
    ends = torch.stack([rows.start[own], rows.stop[own]], -1).to(torch.int32)
    return {"kind": "rows", "each": rows.per_row, "data": chunks.add(ends.cpu().numpy())}


def _bits(mask: Mask, call: Call, entry: int, chunks: Chunks) -> list[Reference]:
    """One array for all heads, or one for each that the mask tells apart; 8 columns a byte, the first the lowest."""
    frame = call.frame
    heads = mask.heads if mask.heads > 1 else 1
    probe = mask.allowed(frame.tile(slice(0, 1), slice(0, 1)))
    if probe.ndim > 2 and probe.shape[-3] > 1:
        heads = frame.heads
    packed = np.zeros((heads, frame.q_len, -(-frame.k_len // 8)), np.uint8)
    step = max(_STRIP_PAIRS // (heads * frame.k_len), 1)
    for first in range(0, frame.q_len, step):
        rows = slice(first, min(first + step, frame.q_len))
        at = frame.tile(rows, slice(0, frame.k_len), slice(entry, entry + 1), slice(0, heads))
        allowed = mask.allowed(at).expand(1, heads, rows.stop - rows.start, frame.k_len)[0]
        packed[:, rows] = np.packbits(allowed.cpu().numpy(), axis=-1, bitorder="little")
    return [chunks.add(one) for one in packed]


def _halves(x: Tensor, chunks: Chunks) -> Json:
    values, scale = halves(x)
    return {**chunks.add(values), "scale": scale}


def _modification(mod: ScoreModification, call: Call, entry: int, chunks: Chunks) -> Json:
    if isinstance(mod, Softcap):
        return {"kind": "cap", "cap": mod.cap}
    if isinstance(mod, Bias):
        table = mod.bias.detach()
        table = table.reshape((1,) * (4 - table.ndim) + tuple(table.shape))
        table = table[entry if table.shape[0] > 1 else 0].cpu()
        bounds = torch.finfo(torch.float16)
        finite = torch.where(table.isinf(), table, table.clamp(bounds.min, bounds.max))
        data = [chunks.add(one.to(torch.float16).numpy()) for one in finite]
        return {"kind": "bias", "data": data, "rows": table.shape[1], "cols": table.shape[2]}
    if not isinstance(mod, (Alibi, RelativeBias)):
        raise UnsupportedError(f"a page knows Softcap, Alibi, RelativeBias and Bias: got {mod!r}.")
    return {"kind": "distance", **_distances(mod, call, entry, chunks)}


def _distances(mod: ScoreModification, call: Call, entry: int, chunks: Chunks) -> Json:
    """What is added at each distance ``k - q``, for each head, and the positions where they are not the usual ones."""
    frame = call.frame
    q, k = _positions(call, entry)
    first, last = int(k.min() - q.max()), int(k.max() - q.min())
    distance = torch.arange(first, last + 1, device=q.device)
    zero = torch.zeros((), dtype=torch.int64, device=q.device)
    heads = torch.arange(frame.heads, device=q.device)[:, None]
    at = Coordinates(zero, heads, zero, zero, distance * 0, distance)
    table = mod.modify(torch.zeros(frame.heads, len(distance), device=q.device), at).detach().float().cpu().numpy()
    made: Json = {"first": first, "data": [chunks.add(one) for one in table]}
    if not frame.by_default:
        made["q"] = chunks.add(q.to(torch.int32).cpu().numpy())
        made["k"] = chunks.add(k.to(torch.int32).cpu().numpy())
    return made


def _positions(call: Call, entry: int) -> tuple[Tensor, Tensor]:
    q, k = call.frame.q_pos, call.frame.k_pos
    return q[entry if q.shape[0] > 1 else 0], k[entry if k.shape[0] > 1 else 0]


def _span(call: Call) -> int:
    if 0 in (call.frame.q_len, call.frame.k_len):
        return 0
    q, k = call.frame.q_pos, call.frame.k_pos
    return int(k.max() - q.min()) - int(k.min() - q.max()) + 1


def _ahead(call: Call, entry: int) -> int:
    """The column that stands beside row 0, so that a query's token is the key's at ``row + ahead``."""
    if call.frame.by_default:
        return call.frame.k_len - call.frame.q_len
    q, k = _positions(call, entry)
    if not (len(q) and len(k)):
        return 0
    same = (k == q[0]).nonzero()
    return int(same[0]) if len(same) else call.frame.k_len - call.frame.q_len

"""The observer that gathers what attention layers compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor, nn

from regard import nn as ladder
from regard._inspect import Inspection
from regard._observe import is_observing
from regard.adapters.torch_mha import MultiheadAttention
from regard.recording.choice import Choice
from regard.recording.disk import Folder
from regard.recording.ids import Side, TokenIds
from regard.recording.layer import Kind, Layer
from regard.recording.names import index_of, kind_of, names_of
from regard.recording.strand import FIRST, Strand
from regard.recording.values import ValueNorms

_OURS = (
    ladder.SimpleSelfAttention,
    ladder.SelfAttentionV1,
    ladder.SelfAttentionV2,
    ladder.CausalAttention,
    ladder.MultiHeadAttention,
    MultiheadAttention,
)

Key = tuple[str, int]
"""A module's name and which of its calls in one forward."""


class Recorder:
    """Watches the modules of one model; each layer grows as a list of strands, one a run.

    Args:
        model: whose modules are watched.
        choice: which of them, and what of them.
        copy: keep copies, never the model's own tensors.
        device: where to keep them.
        max_bytes: how much memory to hold before tensors go to disk.
        progress: told after every layer what was recorded so far.
    """

    def __init__(
        self,
        model: nn.Module,
        choice: Choice,
        *,
        copy: bool,
        device: torch.device | None,
        max_bytes: int | None,
        progress: Callable[[str], None] | None,
    ) -> None:
        self._choice, self._copy, self._device = choice, copy, device
        self._max_bytes, self._progress = max_bytes, progress
        self._modules = _described(model, choice)
        self._strands: dict[Key, list[Strand]] = {}
        self._calls: dict[str, int] = {}
        self._inside = 0
        self._norms = ValueNorms()
        self._folder: Folder | None = None
        self._spilled = 0
        self._lock = Lock()
        self.ids = TokenIds(lambda: is_observing(self))

    @property
    def folder(self) -> Folder | None:
        """Where tensors were spilled to; gone when nobody holds it any more."""
        return self._folder

    def wants(self, module: nn.Module) -> bool:
        return id(module) in self._modules

    def take(self, module: nn.Module, seen: Inspection, v: Tensor) -> None:
        # What activation checkpointing repeats in the backward pass must run as before, and was taken then.
        if not _in_backward():
            with self._lock, torch.no_grad():
                self._take(module, seen, v)

    @property
    def heard(self) -> bool:
        """Whether anything was recorded."""
        return bool(self._strands)

    @contextmanager
    def forwards_of(self, model: nn.Module) -> Iterator[None]:
        """Count a module's calls anew in each forward of ``model``, inside the block."""

        def begin(*_: object) -> None:
            if is_observing(self):
                self._inside += 1
                if self._inside == 1:
                    self._calls.clear()

        def end(*_: object) -> None:
            if is_observing(self):
                self._inside -= 1

        before = model.register_forward_pre_hook(begin)
        after = model.register_forward_hook(end, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def runs(self) -> list[list[Layer]]:
        """The layers of each run, in the order of their first call."""
        count = max((len(strands) for strands in self._strands.values()), default=0)
        if self._spilled:
            for strand in self._all():
                self._spill(strand)
        return [
            [strands[run].layer() for strands in self._strands.values() if run < len(strands)] for run in range(count)
        ]

    def _take(self, module: nn.Module, seen: Inspection, v: Tensor) -> None:
        name, index, kind = self._modules[id(module)]
        call, lse = seen.weights._call, seen.weights._lse
        key = (name, self._number(name))
        strands = self._strands.setdefault(key, [])
        place = strands[-1].fits(call) if strands else None
        if place is None:
            label = name if key[1] == 0 else f"{name}#{key[1] + 1}"
            strands.append(Strand(label, index, kind, call, self._choice, copy=self._copy, device=self._device))
            place = FIRST
        strand = strands[-1]
        new = strand.new_columns(call)
        v = v if v.ndim == 4 else v.reshape(-1, *v.shape[-3:]) if v.ndim > 2 else v[None, None]
        v = v.expand(call.k.shape[0], -1, -1, -1)
        stop = strand.written(call)
        norms = self._norms(module, v[:, :, stop - new : stop], call.q.shape[1])
        if kind != "cross":
            self.ids.settle(_side(kind), len(strands) - 1, place.known)
        strand.add(call, lse, norms, place)
        self._keep_within_bounds()
        if self._progress is not None:
            self._progress(self._said(strand))

    def _number(self, name: str) -> int:
        """Which call of a module in the present forward this is."""
        if not self._inside:
            return 0
        self._calls[name] = self._calls.get(name, -1) + 1
        return self._calls[name]

    def _all(self) -> list[Strand]:
        return [strand for strands in self._strands.values() for strand in strands]

    def _keep_within_bounds(self) -> None:
        if self._max_bytes is None:
            return
        strands = self._all()
        held = {id(strand): strand.nbytes for strand in strands}
        for strand in sorted(strands, key=lambda one: -held[id(one)]):
            if sum(held.values()) <= self._max_bytes:
                return
            self._spill(strand)
            held[id(strand)] = strand.nbytes

    def _spill(self, strand: Strand) -> None:
        if self._folder is None:
            self._folder = Folder()
        self._spilled += 1
        strand.spill(self._folder.path, str(self._spilled))

    def _said(self, strand: Strand) -> str:
        size = sum(one.nbytes for one in self._all()) / 1e6
        disk = "" if self._folder is None else ", the rest on disk"
        layers = len(self._strands)
        return f"recorded {layers} layers, {strand.columns} tokens, {size:.0f} MB in memory{disk}"


def _described(model: nn.Module, choice: Choice) -> dict[int, tuple[str, int, Kind]]:
    """Name, number and kind of each module that is watched, by its id."""
    names = {key: name.replace("_orig_mod.", "") for key, name in names_of(model).items()}
    both = {kind_of(name, nn.Identity()) for name in names.values()} >= {"encoder", "decoder"}
    found: dict[int, tuple[str, int, Kind]] = {}
    order = 0
    for module in model.modules():
        name = names[id(module)]
        kind = kind_of(name, module)
        index = index_of(name, module, order)
        order += isinstance(module, _OURS)
        if choice.wants(name, index):
            found[id(module)] = (name, index, kind if both or kind == "cross" else "self")
    return found


def _side(kind: Kind) -> Side:
    return "encoder" if kind == "encoder" else "decoder"


def _in_backward() -> bool:
    """Whether a forward is repeated inside a backward pass, as activation checkpointing does."""
    return torch._C._current_graph_task_id() != -1

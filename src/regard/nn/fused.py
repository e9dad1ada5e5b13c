"""Query, key and value projections in one parameter, which is saved and loaded under the names of three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_PARTS = ("W_query", "W_key", "W_value")
_JOINED = "in_proj"


class FusedProjection(nn.Linear):
    """The linear layers of queries, keys and values, stacked: ``weight (sum(widths), d_in)``.

    Whoever holds one as ``in_proj`` calls `save_apart`; its state dict then has ``W_query``, ``W_key`` and ``W_value``,
    copies of the rows, and loads that of either kind of module.

    Args:
        d_in: features of a token.
        widths: features of a token's queries, keys and values, over all heads.
        bias: whether there is one.
    """

    def __init__(self, d_in: int, widths: Sequence[int], *, bias: bool) -> None:
        super().__init__(d_in, sum(widths), bias=bias)
        self.widths = tuple(widths)

    def parts(self, kind: str) -> Sequence[Tensor]:
        """The rows of ``weight`` or ``bias`` that belong to queries, keys and values."""
        whole: Tensor = getattr(self, kind)
        return torch.split(whole, list(self.widths))


class Rows:
    """The ``weight`` and ``bias`` of one part of a `FusedProjection`, for what finds parameters by their saved names.

    It is no module and holds none of its own, so that no parameter is counted twice.
    """

    def __init__(self, layer: FusedProjection, part: int) -> None:
        self._layer = layer
        self._part = part

    @property
    def weight(self) -> Tensor:
        """``(widths[part], d_in)``, a view."""
        return self._layer.parts("weight")[self._part]

    @property
    def bias(self) -> Tensor | None:
        """``(widths[part],)``, a view, or None."""
        return None if self._layer.bias is None else self._layer.parts("bias")[self._part]


def project(layer: nn.Module, widths: Sequence[int], x: Tensor, context: Tensor) -> Sequence[Tensor]:
    """Queries of ``x``, keys and values of ``context``, by a `FusedProjection` or by what someone put around it."""
    if context is x:
        return _columns(layer(x), widths)
    if type(layer) is FusedProjection and not layer._forward_pre_hooks and not layer._forward_hooks:
        weights = layer.parts("weight")
        biases = (None,) * 3 if layer.bias is None else layer.parts("bias")
        return [nn.functional.linear(y, w, b) for y, w, b in zip((x, context, context), weights, biases, strict=True)]
    # An adapter around the layer adds to its output, so that no part of it can be had alone.
    return _columns(layer(x), widths)[0], *_columns(layer(context), widths)[1:]


def _columns(joined: Tensor, widths: Sequence[int]) -> Sequence[Tensor]:
    return torch.split(joined, list(widths), -1)


def save_apart(module: nn.Module) -> None:
    """Let ``module``, whose ``in_proj`` is a `FusedProjection`, save and load ``W_query``, ``W_key``, ``W_value``."""
    # Not submodules: torch.distributed.checkpoint looks up what a state dict names.
    vars(module).update({name: Rows(getattr(module, _JOINED), part) for part, name in enumerate(_PARTS)})
    module.register_state_dict_post_hook(_split)
    module.register_load_state_dict_pre_hook(_join)


def as_parameters(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The complete state dict ``weights`` under the names of ``module``'s parameters, as `torch.func` wants them."""
    given = dict(weights)
    if isinstance(getattr(module, _JOINED, None), FusedProjection):
        _join(module, given, "", None, True, [], [], [])
    return given


def _split(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, metadata: object) -> None:
    layer = getattr(module, _JOINED)
    found = {kind: state_dict.pop(f"{prefix}{_JOINED}.{kind}", None) for kind in ("weight", "bias")}
    after = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(f"{prefix}out_proj.")}
    # Copies, as safetensors refuses what shares memory; whoever wants what has gradients gets views.
    parts = {
        kind: [x if x.requires_grad else x.clone() for x in whole.split(layer.widths)]
        for kind, whole in found.items()
        if whole is not None
    }
    state_dict |= {f"{prefix}{part}.{kind}": x[n] for n, part in enumerate(_PARTS) for kind, x in parts.items()}
    state_dict |= after


def _join(
    module: nn.Module,
    state_dict: dict[str, Tensor],
    prefix: str,
    metadata: object,
    strict: bool,  # noqa: FBT001  (torch's signature)
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    layer = getattr(module, _JOINED)
    if not isinstance(layer, FusedProjection):
        return
    for kind in (kind for kind in ("weight", "bias") if layer._parameters.get(kind) is not None):
        rows: list[Any] = list(layer.parts(kind))
        names = [f"{prefix}{part}.{kind}" for part in _PARTS]
        given = [state_dict.pop(name, None) for name in names]
        like = next((x for x in given if x is not None), rows[0])
        for n, (name, x) in enumerate(zip(names, given, strict=True)):
            if x is None:
                missing.append(name)
            elif x.shape != rows[n].shape:
                errors.append(
                    f"size mismatch for {name}: copying a param with shape {x.shape} from checkpoint, the shape in "
                    f"current model is {rows[n].shape}."
                )
            else:
                rows[n] = x
        if any(x.is_meta for x in rows) and not like.is_meta:
            continue
        joined = torch.cat([x.detach().to(like.device) for x in rows])
        state_dict[f"{prefix}{_JOINED}.{kind}"] = _sharded_like(getattr(layer, kind), joined)


def _sharded_like(parameter: Tensor, whole: Tensor) -> Tensor:
    """``whole``, which every process has, sharded as ``parameter`` is."""
    if not hasattr(parameter, "placements") or hasattr(whole, "placements"):
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)

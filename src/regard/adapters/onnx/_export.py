"""Modules that compute through regard as ONNX models."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from regard._call import make_call
from regard._dispatch import backend
from regard._errors import ArgumentError, KindError, MissingError, describe
from regard.backends.native import operators, spelling
from regard.scores import Bias, ScoreModification, Softcap

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def export(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    opset: int = 23,
) -> ONNXProgram:
    """``module``, which computes attention through regard anywhere inside, as an ONNX model.

    A call whose meaning the ``Attention`` operator has, full or causal on as many queries as keys, with or without a
    `Softcap`, becomes that operator; every other one becomes plain operators, with the scores of all pairs, by the
    definition of regard's ``reference`` backend. The module is exported in eval mode, without dropout.

    Args:
        module: any module.
        args: an example of its positional arguments, from which ranks and dtypes are taken.
        kwargs: likewise by name.
        dynamic_shapes: which dims may differ from the example's, as in `torch.export.export`.
        opset: of the model, at least 23.

    Returns:
        What `torch.onnx.export` returns: ``.model_proto``, ``.save(path)``.

    Raises:
        KindError: no module.
        ArgumentError: an older opset.
        MissingError: onnx and onnxscript are not installed.
    """
    if not isinstance(module, nn.Module):
        raise KindError(f"export takes a torch.nn.Module: got {describe(module)}.")
    if opset < 23:
        raise ArgumentError(f"the Attention operator came with opset 23: got opset={opset}.")
    try:
        import onnxscript
    except ImportError as error:
        raise MissingError("export needs onnx and onnxscript: pip install 'regard[onnx]'.") from error
    op = torch.ops.regard.attention.default
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(module, args, dict(kwargs or {}), dynamic_shapes=dynamic_shapes)
            program = program.run_decompositions({op: _plainly})
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                verbose=False,
                custom_translation_table={op: _attention_node(onnxscript)},
            )
    finally:
        for part, mode in modes:
            part.training = mode
    assert made is not None
    return made


def _attention_node(onnxscript: Any) -> Any:
    """What translates one ``regard::attention`` that `_has_a_node` into the operator."""
    op = onnxscript.values.Opset("", 23)

    def translate(q: Any, k: Any, v: Any, *more: Any) -> Any:
        # sinks and tables before the rest, whether to save for backward behind it.
        given = operators._Rest(*more[2:-1])
        cap = given.caps[0] if given.caps else 0.0
        made = op.Attention(q, k, v, is_causal=int(given.mask == "Causal"), scale=given.scale, softcap=cap)
        # Of the operator's outputs the first; nothing else of the call is read.
        return (made[0],)

    return translate


def _has_a_node(q: Tensor, k: Tensor, sinks: Tensor | None, tables: list[Tensor], given: operators._Rest) -> bool:
    """Whether the operator means the same: its causal mask is aligned at the top left."""
    if sinks is not None or tables or given.q_positions is not None or given.k_positions is not None:
        return False
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    square = statically_known_true(q.shape[2] == k.shape[2])
    return given.mask == "Everything" or (given.mask == "Causal" and square)


def _plainly(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, tables: list[Tensor], *rest: Any) -> Outputs | Any:
    """The operator ``regard::attention`` by the definition; NotImplemented where it stays what it is."""
    given = operators._Rest(*rest[:-1])
    if _has_a_node(q, k, sinks, tables, given):
        return NotImplemented
    call = make_call(
        q, k, v, mask=spelling.read(given.mask, given.mask_numbers, given.mask_tensors), scale=given.scale,
        sinks=sinks, q_positions=given.q_positions, k_positions=given.k_positions,
        score_mod=list(_score_mods(given, tables, q.shape[2], k.shape[2])),
    ).with_(wants_lse=True)  # fmt: skip
    result = backend("reference").run(call)
    assert result.lse is not None
    return result.out, result.lse, q.new_empty(0), q.new_empty(0)


def _score_mods(given: operators._Rest, tables: list[Tensor], q_len: int, k_len: int) -> Iterator[ScoreModification]:
    caps, left = iter(given.caps), iter(tables)
    for word in given.changes.split():
        if word == "cap":
            yield Softcap(next(caps))
        elif word == "add":
            yield Bias(next(left))
        else:
            rows, columns = torch.arange(q_len)[:, None], torch.arange(k_len)
            yield Bias(next(left)[:, columns - rows + q_len - 1])


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of packages that it looks for and of deprecations inside itself; neither is the caller's."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx._internal.exporter._registration",)]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)

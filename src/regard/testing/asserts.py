"""Four questions to ask of any attention module, your own included; each failure says which token leaked.

They look at what changes, not at how it is computed: a causal module must not notice its future, whatever it is made
of. Modules map ``(batch, tokens, features)`` to ``(batch, tokens, …)`` and are run in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regard._errors import ShapeError, describe
from regard.masks import Padding

Module = Callable[..., Any]


def assert_causal(module: Module, x: Tensor, *, tolerance: float = 1e-5) -> None:
    """No token's output may change when the tokens after it change.

    Args:
        module: maps ``(B, L, d)`` to ``(B, L, …)``.
        x: input ``(B, L, d)`` with at least two tokens.
        tolerance: largest change, relative to the largest output, that counts as rounding.

    Raises:
        AssertionError: a token that saw its future, and the token that it saw.
        ShapeError: an input on which nothing can be seen.
    """
    _check_input(x, tokens=2)
    with _evaluating(module):
        before = _run(module, x)
        for cut in range(x.shape[1] - 1, 0, -1):
            changed = x.clone()
            changed[:, cut:] = _other(x[:, cut:])
            moved = _moved(_run(module, changed)[:, :cut], before[:, :cut], tolerance)
            if moved is not None:
                entry, token, by = moved
                raise AssertionError(
                    f"not causal: token {token} saw token {cut} of its future. Changing the tokens from {cut} on "
                    f"changed the output of token {token} in batch entry {entry} by {by:.3g}."
                )


def assert_padding_invariant(
    module: Module,
    x: Tensor,
    lengths: Tensor,
    *,
    masked: Callable[[Tensor], dict[str, Any]] = lambda lengths: {"mask": Padding(lengths)},
    tolerance: float = 1e-5,
) -> None:
    """No real token's output may change when the padding behind it changes, or is cut off.

    Args:
        module: maps ``(B, L, d)`` and the keyword arguments of ``masked`` to ``(B, L, …)``.
        x: input ``(B, L, d)``, padded on the right.
        lengths: ``(B,)``, the real tokens of each batch entry.
        masked: from lengths to the keyword arguments that tell the module about them; default:
            ``{"mask": Padding(lengths)}``, as the modules of `regard.nn` take it.
        tolerance: largest change, relative to the largest output, that counts as rounding.

    Raises:
        AssertionError: the batch entry and the token that saw padding.
        ShapeError: an input without batch entries.
    """
    _check_input(x)
    with _evaluating(module):
        before = _run(module, x, **masked(lengths))
        changed = x.clone()
        for entry, length in enumerate(lengths.tolist()):
            changed[entry, length:] = _other(x[entry, length:])
        after = _run(module, changed, **masked(lengths))
        for entry, length in enumerate(lengths.tolist()):
            moved = _moved(after[entry : entry + 1, :length], before[entry : entry + 1, :length], tolerance)
            if moved is not None:
                raise AssertionError(
                    f"padding leaks: changing the padding from token {length} on changed the output of token "
                    f"{moved[1]} in batch entry {entry} by {moved[2]:.3g}."
                )
            alone = _run(module, x[entry : entry + 1, :length], **masked(lengths[entry : entry + 1]))
            moved = _moved(before[entry : entry + 1, :length], alone, tolerance)
            if moved is not None:
                raise AssertionError(
                    f"padding leaks: token {moved[1]} of batch entry {entry} differs by {moved[2]:.3g} from the same "
                    f"{length} tokens without padding."
                )


def assert_batch_invariant(module: Module, x: Tensor, *, tolerance: float = 1e-5) -> None:
    """No batch entry's output may depend on the other entries.

    Args:
        module: maps ``(B, L, d)`` to ``(B, L, …)``.
        x: input ``(B, L, d)`` with at least two batch entries.
        tolerance: largest change, relative to the largest output, that counts as rounding.

    Raises:
        AssertionError: the batch entry and the token that saw another entry.
        ShapeError: an input on which nothing can be seen.
    """
    _check_input(x, entries=2)
    with _evaluating(module):
        together = _run(module, x)
        for entry in range(x.shape[0]):
            moved = _moved(together[entry : entry + 1], _run(module, x[entry : entry + 1]), tolerance)
            if moved is not None:
                raise AssertionError(
                    f"batch entries mix: token {moved[1]} of batch entry {entry} differs by {moved[2]:.3g} from the "
                    "same entry alone."
                )


def assert_cache_consistent(
    module: Module,
    x: Tensor,
    make_cache: Callable[[], Any],
    *,
    chunks: tuple[int, ...] = (1, 3),
    tolerance: float = 1e-5,
) -> None:
    """One pass over all tokens must equal feeding them step by step, and chunk by chunk, through a cache.

    Args:
        module: maps ``(B, L, d)`` to ``(B, L, …)`` and takes ``cache=``, which it appends to.
        x: input ``(B, L, d)``.
        make_cache: a fresh, empty cache.
        chunks: how many tokens at a time.
        tolerance: largest difference, relative to the largest output, that counts as rounding.

    Raises:
        AssertionError: the first token that differs, and with how many tokens at a time.
        ShapeError: an input without tokens.
    """
    _check_input(x)
    with _evaluating(module):
        whole = _run(module, x)
        for size in chunks:
            cache = make_cache()
            parts = [_run(module, part, cache=cache) for part in x.split(size, 1)]
            moved = _moved(torch.cat(parts, 1), whole, tolerance)
            if moved is not None:
                raise AssertionError(
                    f"the cache changes the answer: fed {size} at a time, token {moved[1]} of batch entry {moved[0]} "
                    f"differs by {moved[2]:.3g} from one pass over all {x.shape[1]} tokens."
                )


@contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    """Evaluation mode, without gradients; each submodule's own mode is back afterwards."""
    modules = list(module.modules()) if isinstance(module, nn.Module) else []
    modes = [one.training for one in modules]
    if isinstance(module, nn.Module):
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for one, mode in zip(modules, modes, strict=True):
            one.training = mode


def _check_input(x: Tensor, *, entries: int = 1, tokens: int = 1) -> None:
    """Raise where the assert would pass because there is nothing to compare."""
    if x.ndim != 3 or x.shape[0] < entries or x.shape[1] < tokens:
        raise ShapeError(
            f"x must be (B, L, d) with B >= {entries} and L >= {tokens}, or any module would pass: got {describe(x)}."
        )


def _run(module: Module, x: Tensor, **arguments: Any) -> Tensor:
    out = module(x, **arguments)
    if not isinstance(out, Tensor) or out.shape[:2] != x.shape[:2]:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise AssertionError(f"the module must map (B, L, d) to (B, L, …): got {tuple(x.shape)} to {shape}.")
    return out.flatten(2)


def _other(x: Tensor) -> Tensor:
    """Tokens unlike ``x``, far enough for any dependence to show."""
    generator = torch.Generator().manual_seed(0)
    return -x + 2 * torch.randn(x.shape, generator=generator).to(x)


def _moved(after: Tensor, before: Tensor, tolerance: float) -> tuple[int, int, float] | None:
    """Batch entry and token of the first output that differs, and by how much; NaN differs from everything."""
    change = torch.where(after == before, 0, (after - before).abs()).nan_to_num(torch.inf).amax(-1)
    size = before.nan_to_num(0, 0, 0).abs().max() if before.numel() else 0
    places = (change > tolerance * size).nonzero()
    if not len(places):
        return None
    entry, token = (int(n) for n in places[places[:, 1].argmin()])
    return entry, token, float(change[entry, token])

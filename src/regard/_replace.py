"""`regard.replace`: every `torch.nn.MultiheadAttention` of a model, computed by regard, in place and reversibly."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Self

from torch import nn

from regard._errors import KindError, RegardError, describe
from regard.adapters.torch_mha import MultiheadAttention, from_torch, share_parameters


class _Swap(NamedTuple):
    """One place of the model, what stood there and what stands there now."""

    parent: nn.Module
    child: str
    before: nn.MultiheadAttention
    after: MultiheadAttention


class Replacement:
    """What `replace` did; `undo` reverses it, and so does leaving a ``with`` block.

    Attributes:
        replaced: names of the places that regard computes now.
        skipped: name to reason of every place that was left as it was.
    """

    def __init__(self, swaps: dict[str, _Swap], skipped: dict[str, str], encoders: list[nn.TransformerEncoder]) -> None:
        """Keep what `replace` found, so that it can be undone."""
        self.replaced = tuple(swaps)
        self.skipped = skipped
        self._swaps = swaps
        self._encoders = encoders

    def undo(self) -> None:
        """Put torch's modules back, with the parameters and the training mode that regard's have now.

        A place that holds something else by now is left alone. Undoing twice does nothing more.
        """
        for swap in self._swaps.values():
            share_parameters(swap.after, swap.before)
            swap.before.train(swap.after.training)
            if swap.parent._modules.get(swap.child) is swap.after:
                swap.parent._modules[swap.child] = swap.before
        for encoder in self._encoders:
            encoder.use_nested_tensor = True
        self._swaps, self._encoders = {}, []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        lines = [f"replaced {len(self.replaced)}, skipped {len(self.skipped)}"]
        lines += [f"  {name}" for name in self.replaced]
        lines += [f"  {name}: skipped, {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def replace(model: nn.Module) -> Replacement:
    """Swap every `torch.nn.MultiheadAttention` inside ``model``, in place, for one that regard computes.

    The parameters stay the same objects under the same names, so that optimisers, checkpoints and ``.to`` go on as
    before. Each swap is checked on numbers (`regard.adapters.torch_mha.from_torch`, which also lists what differs on
    purpose). torch's encoder layers go around their attention module in eval mode; around regard's they do not, and
    `torch.nn.TransformerEncoder` makes no nested tensors until the swap is undone.

    Returns:
        What was replaced and what was skipped, with the reasons; its ``undo()`` reverses everything.

    Raises:
        KindError: a model that is itself a `torch.nn.MultiheadAttention`, which has no place to be swapped in.

    >>> model = torch.nn.TransformerEncoderLayer(12, 3, batch_first=True)
    >>> with replace(model) as done:
    ...     print(done)
    replaced 1, skipped 0
      self_attn
    """
    if not isinstance(model, nn.Module):
        raise KindError(f"replace takes a torch.nn.Module: got {describe(model)}.")
    if isinstance(model, nn.MultiheadAttention):
        raise KindError(
            "replace swaps modules inside a model, and this is a torch.nn.MultiheadAttention itself. Convert it with "
            "regard.adapters.torch_mha.from_torch(module)."
        )
    swaps: dict[str, _Swap] = {}
    skipped: dict[str, str] = {}
    made: dict[int, MultiheadAttention | str] = {}
    for name, parent, child, module in _places(model):
        if id(module) not in made:
            made[id(module)] = _converted(module)
        after = made[id(module)]
        if isinstance(after, str):
            skipped[name] = after
        else:
            swaps[name] = _Swap(parent, child, module, after)
    for swap in swaps.values():
        swap.parent._modules[swap.child] = swap.after
    return Replacement(swaps, skipped, _without_nested_tensors(model))


def _places(model: nn.Module) -> list[tuple[str, nn.Module, str, nn.MultiheadAttention]]:
    """Each place that holds one: its name, the module it is in, its name there, and what it holds."""
    return [
        (f"{prefix}.{child}" if prefix else child, parent, child, module)
        for prefix, parent in model.named_modules()
        for child, module in parent._modules.items()
        if isinstance(module, nn.MultiheadAttention)
    ]


def _converted(module: nn.MultiheadAttention) -> MultiheadAttention | str:
    """What regard makes of it, or the reason why it is left alone."""
    if any(kept for name, kept in vars(module).items() if name.startswith("_") and name.endswith("_hooks")):
        return "it has hooks, around its calls or its state dict, which would no longer run"
    try:
        made = from_torch(module)
    except RegardError as refusal:
        return str(refusal)
    more = [
        name
        for kind in ("_parameters", "_buffers", "_modules")
        for name, held in getattr(module, kind).items()
        if held is not None and getattr(made, kind).get(name) is not held
    ]
    return f"it also holds {', '.join(more)}, which would be lost" if more else made


def _without_nested_tensors(model: nn.Module) -> list[nn.TransformerEncoder]:
    """Keep the encoders around replaced modules from packing padded tokens; return those that did."""
    packing = [
        encoder
        for encoder in model.modules()
        if isinstance(encoder, nn.TransformerEncoder)
        and encoder.use_nested_tensor
        and any(isinstance(part, MultiheadAttention) for part in encoder.modules())
    ]
    for encoder in packing:
        encoder.use_nested_tensor = False
    return packing

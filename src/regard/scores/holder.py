"""Score changes that hold a tensor: a module, so that a parameter is trained and a buffer follows ``.to``."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


def follow(before: Tensor, after: Tensor) -> Tensor:
    """``before`` on the device and in the dtype of ``after``, for what no state dict fills again.

    It keeps its numbers where `torch.nn.Module.to_empty` would leave ``after`` without any, and so stays on the meta
    device if it has none itself: a call then says so instead of computing with whatever memory held.
    """
    return before if before.is_meta else before.to(after.device, after.dtype)


class TensorHolder(nn.Module):
    """Holds a `torch.nn.Parameter` as a parameter and any other tensor as a buffer that no state dict saves."""

    def hold(self, name: str, tensor: Tensor) -> None:
        """Register ``tensor`` under ``name``."""
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001  (torch's signature)
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in before.items():
            after = self._buffers[name]
            self._buffers[name] = after if tensor is None or after is None else follow(tensor, after)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

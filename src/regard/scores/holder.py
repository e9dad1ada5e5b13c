"""Score changes that hold a tensor: a module, so that a parameter is trained and a buffer follows ``.to``."""

from torch import Tensor, nn


class TensorHolder(nn.Module):
    """Holds a `torch.nn.Parameter` as a parameter and any other tensor as a buffer that no state dict saves."""

    def hold(self, name: str, tensor: Tensor) -> None:
        """Register ``tensor`` under ``name``."""
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor, persistent=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

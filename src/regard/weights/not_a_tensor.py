"""What a lazy object refuses: to be taken for a tensor by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from regard._errors import KindError


def _refusal(what: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *others: object) -> NoReturn:
        raise KindError(
            f"lazy attention weights {what}, since that would compute them all: take a part with weights[b, h, i0:i1], "
            "a reduction such as .max(), .entropy() or .pool(64, 64), or the tensor itself with .dense()."
        )

    return refuse


class NotATensor:
    """Base that refuses truth value, iteration, comparison and arithmetic in words that say what to call instead."""

    __bool__ = _refusal("have no truth value")
    __iter__ = __contains__ = _refusal("are not iterated over")
    __float__ = __int__ = __index__ = _refusal("are not a number")

    __eq__: Any = _refusal("are not compared")
    __ne__: Any = __eq__
    __lt__ = __le__ = __gt__ = __ge__ = __eq__
    __hash__ = object.__hash__

    __add__ = __sub__ = __mul__ = __matmul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = _refusal(
        "do no arithmetic"
    )
    __radd__ = __rsub__ = __rmul__ = __rmatmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __add__
    __neg__ = __abs__ = __add__

    # Without this NumPy's operators would turn the weights into an array first.
    __array_ufunc__ = None

"""A mask written on the command line: parsed, never evaluated as code."""

from __future__ import annotations

import ast
from collections.abc import Callable

import torch

from regard import masks
from regard._errors import ArgumentError
from regard.masks import Mask

_LONGEST = 2000
_TOO_LARGE = 2**31
_MAKERS: dict[str, Callable[..., Mask]] = {
    "Causal": masks.Causal,
    "Chunked": masks.Chunked,
    "Dilated": masks.Dilated,
    "Document": masks.Document,
    "Document.from_lengths": masks.Document.from_lengths,
    "Everything": masks.Everything,
    "Nothing": masks.Nothing,
    "Padding": masks.Padding,
    "Prefix": masks.Prefix,
    "SlidingWindow": masks.SlidingWindow,
    "SlidingWindow.of_width": masks.SlidingWindow.of_width,
}


def parse_mask(text: str) -> Mask:
    """The mask that ``text`` spells: mask names, ints, None, lists of ints, ``&``, ``|``, ``~`` and parentheses.

    Raises:
        ArgumentError: anything else.

    >>> parse_mask("Causal() & SlidingWindow(255)")
    Causal() & SlidingWindow(255, 0)
    """
    if len(text) > _LONGEST:
        raise ArgumentError(f"a mask expression has at most {_LONGEST} characters: got {len(text)}.")
    try:
        return _mask(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"a mask is an expression such as 'Causal() & SlidingWindow(255)': got {text!r}.") from None
    except TypeError as error:
        raise ArgumentError(f"the mask {text!r} does not fit together: {error}.") from None


def _mask(node: ast.expr) -> Mask:
    match node:
        case ast.BinOp(left, ast.BitAnd(), right):
            return _mask(left) & _mask(right)
        case ast.BinOp(left, ast.BitOr(), right):
            return _mask(left) | _mask(right)
        case ast.UnaryOp(ast.Invert(), operand):
            return ~_mask(operand)
        case ast.Call(function, positional, named):
            maker = _maker(function)
            values = [_value(argument) for argument in positional]
            return maker(*values, **{str(word.arg): _value(word.value) for word in named})
    raise _refusal(node, "a mask such as Causal()")


def _maker(node: ast.expr) -> Callable[..., Mask]:
    name = ast.unparse(node)
    if name not in _MAKERS:
        raise ArgumentError(f"there is no mask {name!r} on the command line, only {', '.join(_MAKERS)}.")
    return _MAKERS[name]


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(None):
            return None
        case ast.Constant(value) if type(value) is int and value < _TOO_LARGE:
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(value)) if type(value) is int and value < _TOO_LARGE:
            return -value
        case ast.List(elements):
            numbers = [_value(element) for element in elements]
            if all(isinstance(n, int) for n in numbers):
                return torch.tensor(numbers, dtype=torch.int64)
    raise _refusal(node, "a 32-bit int, None or a list of them")


def _refusal(node: ast.expr, wanted: str) -> ArgumentError:
    return ArgumentError(f"a mask expression takes {wanted} where it has {ast.unparse(node)!r}.")

"""What the tour walks through: a few words, and a vector for each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from rich.console import RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text
from torch import Tensor

from regard._errors import ArgumentError

MOST_TOKENS = 12

BOOK_TOKENS = ("Your", "journey", "starts", "with", "one", "step")
BOOK_INPUTS = (
    (0.43, 0.15, 0.89),
    (0.55, 0.87, 0.66),
    (0.57, 0.85, 0.64),
    (0.22, 0.58, 0.33),
    (0.77, 0.25, 0.10),
    (0.05, 0.80, 0.55),
)

# Scripts that write no spaces between words: kana and Han, one letter a token.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


@dataclass(frozen=True)
class Lesson:
    """The tokens that every section works on.

    Attributes:
        tokens: the words.
        x: their vectors ``(L, 3)``.
        left_out: words of the text beyond the first twelve.
    """

    tokens: tuple[str, ...]
    x: Tensor
    left_out: int = 0

    @property
    def from_book(self) -> bool:
        """Whether these are the six tokens whose values the book prints."""
        return self.tokens == BOOK_TOKENS

    @property
    def chosen(self) -> int:
        """The token whose numbers are worked out one by one: the second, where there are two."""
        return min(1, len(self.tokens) - 1)

    @property
    def word(self) -> str:
        """The chosen token, in bold."""
        return f"[bold]{escape(self.tokens[self.chosen])}[/bold]"


class Section(NamedTuple):
    """One step of the tour."""

    title: str
    show: Callable[[Lesson], Iterable[RenderableType]]


def lesson_of(text: str | None) -> Lesson:
    """The book's six tokens, or the first words of ``text`` with drawn vectors; one word has one vector.

    Raises:
        ArgumentError: a text without words.
    """
    if text is None:
        return Lesson(BOOK_TOKENS, torch.tensor(BOOK_INPUTS))
    words = _WORD.findall("".join(map(_printable, text)))
    if not words:
        raise ArgumentError(f"--text needs at least one word: got {text!r}.")
    tokens = tuple(words[:MOST_TOKENS])
    if tokens == BOOK_TOKENS:
        return lesson_of(None)
    vocabulary = list(dict.fromkeys(tokens))
    drawn = torch.rand(len(vocabulary), 3, generator=torch.Generator().manual_seed(123))
    x = torch.stack([(drawn[vocabulary.index(token)] * 100).round() / 100 for token in tokens])
    return Lesson(tokens, x, len(words) - len(tokens))


def _printable(letter: str) -> str:
    """Control characters separate words; invisible joiners inside a word have no width that terminals agree on."""
    if letter.isprintable():
        return letter
    return "" if unicodedata.category(letter) == "Cf" else " "


def say(words: str) -> Text:
    """A paragraph; ``[bold]`` and the like are markup, so that a user's words need `rich.markup.escape`."""
    return Text.from_markup(" ".join(words.split()))


def code(line: str) -> Padding:
    """A line of Python, or of a calculation."""
    return Padding(Text(line, style="cyan"), (0, 0, 0, 2), expand=False)


def figure(picture: RenderableType) -> Padding:
    """A picture, with air around it."""
    return Padding(picture, (1, 0, 1, 2), expand=False)


def number(value: float) -> str:
    """Four decimals."""
    return f"{value:.4f}"

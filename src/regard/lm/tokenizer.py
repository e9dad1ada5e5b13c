"""From text to token ids and back: characters, or byte pairs trained on the text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from regard._errors import ArgumentError, MissingError


class Tokenizer(ABC):
    """Base of both: ``decode(encode(text)) == text`` for every text that it can encode."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many different tokens there are."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids.

        Raises:
            ArgumentError: characters that the tokenizer does not have.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""

    @abstractmethod
    def state(self) -> dict[str, object]:
        """What `restore` makes the tokenizer of again; JSON takes it."""

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each token as it comes; a character of several tokens comes with its last one."""
        pending: list[int] = []
        for token in ids:
            pending.append(token)
            text = self.decode(pending)
            # A character of UTF-8 has at most four bytes, and a token at least one.
            if not text.endswith("\ufffd") or len(pending) > 3:
                yield text
                pending.clear()
        if pending:
            yield self.decode(pending)


class Characters(Tokenizer):
    """Every character is a token.

    >>> tokenizer = Characters.of("to be")
    >>> tokenizer.encode("be to")
    [1, 2, 0, 4, 3]
    """

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self._ids = {character: n for n, character in enumerate(alphabet)}

    @classmethod
    def of(cls, text: str) -> Characters:
        """All characters of ``text``, sorted."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            unknown = "".join(sorted(set(text) - set(self.alphabet)))
            raise ArgumentError(
                f"the model knows the {self.size} characters of its training text, and these are not among them: "
                f"{unknown!r}. Leave them out, or train with byte pairs, which can write every text."
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.alphabet[n] for n in ids)

    def state(self) -> dict[str, object]:
        return {"kind": "characters", "alphabet": self.alphabet}


class BytePairs(Tokenizer):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; GPT-2's bytes) by Hugging Face's `tokenizers`.

    Every byte is a token, so every text can be written; frequent neighbours are joined to longer tokens.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def of(cls, text: str, size: int = 2048) -> BytePairs:
        """Learn at most ``size`` tokens from ``text``, 256 of them the bytes.

        Raises:
            ArgumentError: a size below 257.
            MissingError: `tokenizers` is not installed.
        """
        if size < 257:
            raise ArgumentError(f"byte pairs need 256 tokens for the bytes and one to join two: got {size}.")
        tokenizers = _tokenizers()
        model = tokenizers.Tokenizer(tokenizers.models.BPE())
        model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(model)

    @property
    def size(self) -> int:
        return int(self._model.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        return list(self._model.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._model.decode(list(ids)))

    def state(self) -> dict[str, object]:
        return {"kind": "byte pairs", "tokenizers": self._model.to_str()}


def restore(state: Mapping[str, object]) -> Tokenizer:
    """The tokenizer whose `Tokenizer.state` this is.

    Raises:
        MissingError: byte pairs, and `tokenizers` is not installed.
    """
    if state["kind"] == "characters":
        return Characters(str(state["alphabet"]))
    return BytePairs(_tokenizers().Tokenizer.from_str(str(state["tokenizers"])))


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingError("byte pairs need the package tokenizers: pip install 'regard[lm]'.") from None
    return tokenizers

"""Text to train on: files, or one of the embedded corpora."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from regard._errors import ArgumentError

EMBEDDED = ("shakespeare", "tang")
"""Corpora in the package; ``lm/corpora/SOURCES.md`` says where they come from."""


@dataclass(frozen=True)
class Text:
    """A text and where it came from.

    Attributes:
        text: all of it.
        source: an embedded corpus's name, or the files' names.
    """

    text: str
    source: str

    @property
    def digest(self) -> str:
        """SHA-256 of the UTF-8 text, by which a resumed training knows it again."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def embedded(name: str) -> Text:
    """The corpus ``"shakespeare"`` (English, 0.95 MB) or ``"tang"`` (poems of the Tang dynasty, 0.72 MB).

    Raises:
        ArgumentError: no such corpus.

    >>> embedded("tang").text.splitlines()[1]
    '莫道兩京非遠別，春明門外即天涯。'
    """
    if name not in EMBEDDED:
        raise ArgumentError(f"the embedded corpora are {' and '.join(EMBEDDED)}: got {name!r}.")
    packed = (files("regard.lm") / "corpora" / f"{name}.txt.xz").read_bytes()
    return Text(lzma.decompress(packed).decode(), name)


def read_files(paths: Sequence[str | Path]) -> Text:
    """The texts of UTF-8 files, one after the other.

    Raises:
        ArgumentError: no file, one that cannot be read, is empty or is not UTF-8; the sentence names file and offset.
    """
    if not paths:
        raise ArgumentError(f"name at least one text file, or one of the corpora {' and '.join(EMBEDDED)}.")
    return Text("\n".join(_read(Path(path)) for path in paths), ", ".join(Path(path).name for path in paths))


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ArgumentError(f"cannot read {path}: {error.strerror or error}.") from None
    if not raw:
        raise ArgumentError(f"{path} is empty; a model learns from text.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ArgumentError(
            f"{path} must be UTF-8: the byte 0x{raw[error.start]:02X} at offset {error.start} (line {line}) is not "
            f"({error.reason}). Convert the file, e.g. with 'iconv -t UTF-8'."
        ) from None
    if not text.strip():
        raise ArgumentError(f"{path} holds nothing but white space; a model learns from text.")
    return text.replace("\r\n", "\n")

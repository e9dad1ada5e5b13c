"""Files, embedded corpora and tokenizers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import regard as rg
from regard import lm
from regard.lm.data import Corpus
from regard.lm.tokenizer import restore

BYTE_PAIRS = lm.BytePairs.of("to be or not to be, that is the question: 春眠不覺曉 " * 20, 300)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "is empty"),
        (b" \n\t", "nothing but white space"),
        (b"good\nb\xe4d", r"the byte 0xE4 at offset 6 \(line 2\) is not"),
        (b"\xff\xfea\x00", r"the byte 0xFF at offset 0 \(line 1\)"),
        ("春".encode()[:2], "offset 0"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, raw: bytes, match: str) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(raw)
    with pytest.raises(rg.ArgumentError, match=match) as raised:
        lm.read_files([file])
    assert str(file) in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(rg.ArgumentError, match=r"cannot read .*none.txt: No such file"):
        lm.read_files([tmp_path / "none.txt"])
    with pytest.raises(rg.ArgumentError, match="name at least one text file"):
        lm.read_files([])


def test_files_come_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffün\r\n".encode())
    (tmp_path / "b.txt").write_bytes("春".encode())
    text = lm.read_files([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert text == lm.Text("ün\n\n春", "a.txt, b.txt")


@pytest.mark.parametrize("name", ["shakespeare", "tang"])
def test_an_embedded_corpus_is_what_its_source_note_says(name: str) -> None:
    text = lm.embedded(name).text
    noted = (Path(str(lm.__file__)).parent / "corpora" / "SOURCES.md").read_text(encoding="utf-8")
    assert f"**{name}.txt.xz** ({len(text):,} characters, {len(set(text)):,} distinct)" in noted.replace("\n", " ")
    with pytest.raises(rg.ArgumentError, match="the embedded corpora are shakespeare and tang: got 'bible'"):
        lm.embedded("bible")


@given(st.text())
def test_byte_pairs_write_every_text(text: str) -> None:
    ids = BYTE_PAIRS.encode(text)
    assert BYTE_PAIRS.decode(ids) == text
    assert "".join(BYTE_PAIRS.stream(ids)) == text


def test_byte_pairs_are_shorter_than_bytes_and_come_back_from_json() -> None:
    text = "to be or not to be"
    assert len(BYTE_PAIRS.encode(text)) < len(text) / 2
    assert BYTE_PAIRS.size <= 300
    assert restore(BYTE_PAIRS.state()).encode(text) == BYTE_PAIRS.encode(text)
    with pytest.raises(rg.ArgumentError, match=r"256 tokens for the bytes.*got 256"):
        lm.BytePairs.of(text, 256)


def test_a_character_of_several_tokens_comes_whole() -> None:
    rare = "夏"
    assert len(BYTE_PAIRS.encode(rare)) > 1
    assert list(BYTE_PAIRS.stream(BYTE_PAIRS.encode(f"a{rare}b"))) == ["a", rare, "b"]
    broken = BYTE_PAIRS.encode(rare)[:-1]
    assert "".join(BYTE_PAIRS.stream([*broken, *BYTE_PAIRS.encode("b")])).endswith("b")


def test_characters() -> None:
    characters = lm.Characters.of("春眠不覺曉")
    assert characters.decode(characters.encode("曉春")) == "曉春"
    assert restore(characters.state()).encode("曉春") == characters.encode("曉春")
    with pytest.raises(rg.ArgumentError, match=r"knows the 5 characters of its training text.*'ax'"):
        characters.encode("axa春")


def test_the_end_of_the_text_is_held_out() -> None:
    text = lm.Text("abcdefghij" * 20, "letters")
    corpus = Corpus.of(text, lm.Characters.of(text.text), held_out=0.25, context=9)
    assert (len(corpus.train), len(corpus.held_out), corpus.characters_per_token) == (150, 50, 1.0)
    ids, targets = corpus.held_out_windows(10**6, 9)
    assert ids.shape == (5, 9)
    assert int(targets[-1, -1]) == 9
    assert ((ids + 1) % 10 == targets).all()


def test_a_step_has_its_windows_whatever_came_before() -> None:
    text = lm.Text("abcdefghij" * 20, "letters")
    corpus = Corpus.of(text, lm.Characters.of(text.text), held_out=0.1, context=9)
    first, again, other = (corpus.batch(3, step, 8, 9)[0] for step in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()
    starts = {int(corpus.batch(0, step, 64, 170)[0][0, 0]) for step in range(60)}
    assert len(starts) == 10, "every window can be drawn"


@pytest.mark.parametrize(("held_out", "part"), [(0.1, r"held-out part of letters \(10%\)"), (0.0, "held-out")])
def test_a_text_shorter_than_a_context_is_refused(held_out: float, part: str) -> None:
    text = lm.Text("abcdefghij" * 10, "letters")
    with pytest.raises(rg.ArgumentError, match=f"{part}.*at least context_length \\+ 1 = 12 tokens: it has"):
        Corpus.of(text, lm.Characters.of(text.text), held_out=held_out, context=11)

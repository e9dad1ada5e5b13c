"""The tour shows the book's numbers, fits its width, and takes any text."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.cells import cell_len

from regard.cli.pictures import label
from regard.cli.tour.command import SECTIONS
from regard.cli.tour.lesson import BOOK_TOKENS, lesson_of

Run = Callable[..., Any]

# Printed in chapter 3 of S. Raschka, Build a Large Language Model (From Scratch), 2024.
PUBLISHED = {
    2: ["= 0.9544", "= 1.4950", "= 1.4754", "= 0.8434", "= 0.7070", "= 1.0865"],
    3: ["0.1385", "0.2379", "0.2333", "0.1240", "0.1082", "0.1581", "1.0000"],
    4: ["0.4419  0.6515  0.5683"],
    5: ["0.9995", "0.2098", ["0.4421", "0.5931", "0.5790"][0], "0.5645"],
    6: ["= 0.4306", "= 1.4551"],
    7: ["1.2705", "1.8524", "0.2264", "0.3061, 0.8210", "0.8040"],
    8: ["-0.0739", "0.0713", "0.2041"],
    9: ["1.0000", "0.5517", "0.4483", "0.1935", "0.1529"],
    12: ["-0.4519", "0.4772", "0.3493", "0.3190", "0.4028"],
    13: ["0.3190", "0.4858", "0.4028"],
}


MIXED = "我喜欢 attention とても 👩\u200d🚀 [bold]x[/bold] supercalifragilisticexpialidocious a b c d e"


@pytest.mark.parametrize("section", PUBLISHED)
def test_the_published_numbers(run: Run, section: int) -> None:
    status, out, _ = run("tour", "--section", str(section))
    assert status == 0
    for number in PUBLISHED[section]:
        assert number in out


def test_all_sections_in_order(run: Run) -> None:
    status, out, _ = run("tour")
    assert status == 0
    starts = [out.index(f"\n{n}. {section.title} ─") for n, section in enumerate(SECTIONS, 1)]
    assert starts == sorted(starts)
    assert "These are the six tokens of chapter 3" in out


def test_one_section_alone_is_that_part_of_the_whole(run: Run) -> None:
    _, whole, _ = run("tour")
    for n in range(1, len(SECTIONS) + 1):
        _, alone, _ = run("tour", "--section", str(n))
        assert alone in whole


@pytest.mark.parametrize("width", [25, 40, 60, 80, 120])
@pytest.mark.parametrize("text", [None, MIXED])
def test_it_fits_its_width(run: Run, width: int, text: str | None) -> None:
    status, out, _ = run("tour", *([] if text is None else ["--text", text]), width=width)
    assert status == 0
    assert max(cell_len(line) for line in out.split("\n")) <= min(width, 100)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("one", 5, "one  "), ("journey", 6, "journ…"), ("喜欢", 5, "喜欢 "), ("喜欢喜", 5, "喜欢…"), ("喜欢喜", 4, "喜…")],
)
def test_labels_are_as_wide_as_asked(text: str, width: int, shown: str) -> None:
    assert label(text, width).rstrip() == shown.rstrip()
    assert cell_len(label(text, width)) == width


def test_columns_stand_under_one_another_beside_wide_letters(run: Run) -> None:
    _, out, _ = run("tour", "--section", "1", "--text", "喜 love amour")
    rows = [line for line in out.split("\n") if line.startswith(("  喜", "  love", "  amour"))]
    assert len(rows) == 3
    assert len({cell_len(row[: row.index("0.")]) for row in rows}) == 1


@pytest.mark.parametrize("text", ["one", "same same same", "a\x1b[31mb\x00c"])
def test_any_text(run: Run, text: str) -> None:
    status, out, err = run("tour", "--text", text)
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert "\x00" not in out
    assert "nan" not in out


def test_words_and_their_vectors() -> None:
    lesson = lesson_of("to be or not to be")
    assert lesson.tokens == ("to", "be", "or", "not", "to", "be")
    assert torch.equal(lesson.x[:2], lesson.x[4:])
    assert not torch.equal(lesson.x[0], lesson.x[1])
    assert torch.equal(lesson.x, lesson_of("to be or not to be").x)
    again = lesson_of("to to be")
    assert torch.equal(again.x[0], again.x[1])
    assert not torch.equal(again.x[0], again.x[2])
    assert lesson_of("我 like とても").tokens == ("我", "like", "と", "て", "も")
    assert lesson_of("می\u200cخواهم").tokens == ("میخواهم",)
    assert lesson_of(" ".join(BOOK_TOKENS)).from_book
    assert not lesson.from_book


def test_a_long_text_is_shortened_and_said_so(run: Run) -> None:
    _, out, _ = run("tour", "--section", "1", "--text", " ".join(f"word{n}" for n in range(20)))
    assert "word11" in out
    assert "word12" not in out
    assert "left out 8" in " ".join(out.split())


def test_the_leak_is_measured(run: Run) -> None:
    _, out, _ = run("tour", "--section", "10")
    rows = {words[0]: words[1:] for words in map(str.split, out.split("\n")) if words and words[0] in BOOK_TOKENS}
    assert rows["Your"] == ["0.000000", "0.000000"]
    for token in BOOK_TOKENS[1:5]:
        assert float(rows[token][0]) > 1e-3
        assert rows[token][1] == "0.000000"
    assert float(rows["step"][1]) > 1


def test_the_dropout_picture_is_the_books(run: Run) -> None:
    _, out, _ = run("tour", "--section", "11")
    assert "  Your     ████  ████" in out
    assert "differ by" in out


def test_the_fast_path_gives_the_same_numbers(run: Run) -> None:
    _, out, _ = run("tour", "--section", "13")
    rows = [line.split() for line in out.split("\n") if "Attention" in line and "e-" in line]
    assert len(rows) == 6
    assert all(float(value) < 1e-6 for row in rows for value in row[1:])


def test_colours_on_a_terminal_unless_they_are_not_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "48;2;255;183;3m  1.0000 " in run("tour", "--section", "9").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "48;2" not in run("tour", "--section", "9").out


def test_pause_waits_after_each_section_but_the_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["", "q"])
    monkeypatch.setattr("builtins.input", lambda *prompt: next(answers))
    _, out, _ = run("tour", "--pause")
    assert "\n2. Dot products" in out
    assert "\n3. Softmax" not in out
    assert next(answers, None) is None


def test_pause_without_a_keyboard_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*prompt: object) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    assert f"\n{len(SECTIONS)}. What to try next" in run("tour", "--pause").out

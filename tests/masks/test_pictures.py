"""Pictures: text, HTML and matplotlib, for small masks pair by pair and for long ones block by block."""

import sys
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
import torch

import regard as rg
from regard._errors import MissingError, ShapeError

TABLE = torch.tensor([[True, False, False], [True, True, False]])


def test_text_names_positions_and_may_attend() -> None:
    assert (rg.Causal() & rg.SlidingWindow(1)).show(2, 4).splitlines() == [
        "    0 1 2 3",
        "2   · ■ ■ ·",
        "3   · · ■ ■",
    ]


def test_text_lines_up_positions_of_two_digits() -> None:
    assert rg.Causal().show(3, 2, torch.tensor([9, 10, -11]), torch.tensor([9, 10])).splitlines() == [
        "       9 10",
        "  9    ■  ·",
        " 10    ■  ■",
        "-11    ·  ·",
    ]


def test_text_stands_long_positions_upright() -> None:
    assert rg.Causal().show(2, 2, torch.tensor([99, 100]), torch.tensor([99, 100])).splitlines() == [
        "        1",
        "      9 0",
        "      9 0",
        " 99   ■ ·",
        "100   ■ ■",
    ]


def test_text_draws_a_long_mask_in_blocks() -> None:
    lines = rg.Causal().show(1_000_000, 1_000_000).splitlines()
    assert lines[0] == "blocks of 32768 × 32768, ▒ where a part may attend"
    rows = [line[9:].split() for line in lines[7:]]
    assert len(rows) == 31
    assert rows == [["■"] * n + ["▒"] + ["·"] * (30 - n) for n in range(31)]
    assert [int(line[:6]) for line in lines[7:]] == list(range(0, 1_000_000, 32_768))


def test_text_keeps_single_rows_of_a_short_and_wide_mask() -> None:
    lines = rg.Causal().show(2, 64).splitlines()
    assert lines[0] == "blocks of 1 × 2, ▒ where a part may attend"
    assert lines[-2:] == ["62   " + " ■ " * 31 + " ▒", "63   " + " ■ " * 31 + " ■"]


def test_text_draws_each_batch_entry_and_head_up_to_four() -> None:
    assert rg.Padding(torch.tensor([1, 2])).show(1, 2) == (
        "batch entry 0 of 2\n    0 1\n1   ■ ·\n\nbatch entry 1 of 2\n    0 1\n1   ■ ■"
    )
    both = rg.Padding(torch.tensor([1, 2, 0])) & rg.Dense(torch.ones(2, 1, 1, dtype=torch.bool))
    shown = both.show(1, 2).split("\n\n")
    assert [part.splitlines()[0] for part in shown] == [
        "batch entry 0 of 3, head 0 of 2",
        "batch entry 0 of 3, head 1 of 2",
        "batch entry 1 of 3, head 0 of 2",
        "batch entry 1 of 3, head 1 of 2",
        "… and 2 more",
    ]


def test_text_of_nothing() -> None:
    assert rg.Causal().show(0, 2) == "   0 1"
    assert rg.Causal().show(2, 0) == "\n-2\n-1"
    assert rg.Causal().show(0, 0) == ""


def test_a_picture_checks_its_sizes() -> None:
    with pytest.raises(ShapeError, match="Dense must broadcast"):
        rg.Dense(TABLE).show(3, 3)


def svg_rows(html: str) -> list[dict[int, str]]:
    """For each drawing, the opacity at each ``row * columns + column``."""
    drawings = []
    for svg in ElementTree.fromstring(html).iter("svg"):
        columns = int(svg.attrib["viewBox"].split()[2])
        cells: dict[int, str] = {}
        for rect in svg.iter("rect"):
            x, y, width = (int(rect.attrib[name]) for name in ("x", "y", "width"))
            cells |= {y * columns + x + n: rect.attrib["fill-opacity"] for n in range(width)}
        drawings.append(cells)
    return drawings


def test_html_draws_every_cell_once() -> None:
    [cells] = svg_rows(rg.Dense(TABLE)._repr_html_())
    assert [cells[n] for n in range(6)] == ["0.9", "0.08", "0.08", "0.9", "0.9", "0.08"]


def test_html_is_self_contained_and_well_formed() -> None:
    html = (rg.Causal() | rg.Predicate(lambda b, h, q, k: q < k))._repr_html_()
    ElementTree.fromstring(html)
    assert "&lt;lambda&gt;" in html
    assert "16 queries × 16 keys" in html
    for outside in ("http", "<script", "url(", "href", "src="):
        assert outside not in html


def test_html_takes_its_size_from_the_tensors() -> None:
    valid = rg.Padding.from_valid(torch.ones(2, 7, dtype=torch.bool))
    for mask, size in (
        (rg.Dense(TABLE), "2 queries × 3 keys"),
        (rg.Causal() & ~rg.Document(torch.zeros(100, dtype=torch.int64)), "100 queries × 100 keys · blocks of 4 × 4"),
        (valid | rg.Causal(), "16 queries × 7 keys"),
        (rg.Padding(torch.arange(9)), "16 queries × 16 keys · … and 5 more"),
    ):
        assert size in mask._repr_html_()


def test_html_of_tensors_without_a_common_size_is_the_repr() -> None:
    mask = rg.Dense(TABLE) & rg.Dense(TABLE[:, :2])
    assert mask._repr_html_() == "<code>Dense(&lt;bool (2, 3)&gt;) &amp; Dense(&lt;bool (2, 2)&gt;)</code>"


def test_html_of_a_function_that_reads_a_shorter_table_is_the_repr() -> None:
    table = torch.ones(3, dtype=torch.bool)
    assert rg.Predicate(lambda b, h, q, k: table[k] & (q >= 0))._repr_html_().startswith("<code>Predicate(")


@pytest.fixture
def pyplot() -> Iterator[object]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.mark.usefixtures("pyplot")
def test_plot_draws_the_cells_and_names_its_axes() -> None:
    axes = rg.Dense(TABLE).plot(2, 3)
    assert axes.images[0].get_array().tolist() == [[2, 0, 0], [2, 2, 0]]  # type: ignore[union-attr]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("key position", "query position")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2"]
    assert axes.get_title() == "Dense(<bool (2, 3)>)"


@pytest.mark.usefixtures("pyplot")
def test_plot_draws_long_masks_in_blocks_on_given_axes(pyplot) -> None:  # type: ignore[no-untyped-def]
    _, given = pyplot.subplots()
    axes = (rg.Causal() & rg.Padding(torch.tensor([9, 5]))).plot(100_000, 100_000, ax=given)
    assert axes is given
    assert axes.images[0].get_array().shape == (196, 196)
    assert axes.get_title() == "Causal() & Padding(<int64 (2,)>)\nbatch entry 0 of 2\nblocks of 512 × 512"


@pytest.mark.usefixtures("pyplot")
def test_plot_of_no_keys() -> None:
    assert not rg.Causal().plot(3, 0).images


def test_plot_without_matplotlib_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match=r"matplotlib, which is missing: pip install regard\[plot\]"):
        rg.Causal().plot(2, 2)

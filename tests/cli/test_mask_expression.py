"""Masks written on the command line: read, never run."""

import pytest
import torch

import regard as rg
from regard.cli.mask_expression import parse_mask


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("Causal()", rg.Causal()),
        (" Causal() & SlidingWindow(255) ", rg.Causal() & rg.SlidingWindow(255)),
        ("SlidingWindow(None, right=3)", rg.SlidingWindow(None, right=3)),
        ("SlidingWindow.of_width(8)", rg.SlidingWindow.of_width(8)),
        ("~(Prefix(3) | Chunked(4)) & Dilated(2)", ~(rg.Prefix(3) | rg.Chunked(4)) & rg.Dilated(2)),
        ("Everything() & ~Nothing()", rg.Everything()),
    ],
)
def test_it_reads_what_a_mask_prints(text: str, mask: rg.Mask) -> None:
    assert parse_mask(text) == mask
    assert parse_mask(repr(mask)) == mask


def test_lists_become_tensors() -> None:
    assert parse_mask("Document([0, 0, 1])").equal(rg.Document(torch.tensor([0, 0, 1])))
    assert parse_mask("Padding([2, 5])").equal(rg.Padding(torch.tensor([2, 5])))
    assert parse_mask("Document.from_lengths([1, 2])").dense(3, 3).sum() == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a mask is an expression such as"),
        ("Causal(", "a mask is an expression such as"),
        ("(" * 900 + ")" * 900, "a mask is an expression such as"),
        ("~" * 1900 + "Causal()", "a mask is an expression such as"),
        ("Causal", "takes a mask such as Causal\\(\\) where it has 'Causal'"),
        ("Causal() + Prefix(1)", "takes a mask such as .* 'Causal\\(\\) \\+ Prefix\\(1\\)'"),
        ("__import__('os').system('true')", "there is no mask \"__import__\\('os'\\).system\" on the command line"),
        ("Predicate(print)", "there is no mask 'Predicate' on the command line, only Causal, "),
        ("Causal().__class__()", "there is no mask"),
        ("Prefix(open('x'))", "takes a 32-bit int, None or a list of them where it has \"open\\('x'\\)\""),
        ("Prefix(9 ** 9 ** 9)", "takes a 32-bit int, None or a list of them"),
        ("Prefix(99999999999999999999)", "takes a 32-bit int, None or a list of them"),
        ("Prefix(True)", "takes a 32-bit int, None or a list of them where it has 'True'"),
        ("Document([0, None])", "takes a 32-bit int, None or a list of them"),
        ("Prefix(foo=3)", "the mask 'Prefix\\(foo=3\\)' does not fit together: .*'foo'"),
        ("Prefix(**x)", "takes a 32-bit int, None or a list of them where it has 'x'"),
        ("SlidingWindow(-1)", "SlidingWindow's left must be at least 0: got -1"),
        ("x" * 2001, "at most 2000 characters: got 2001"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(rg.ArgumentError, match=message):
        parse_mask(text)

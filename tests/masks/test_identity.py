"""Equality, hash, repr, and moving a mask's tensors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import regard as rg
from regard.masks import And, Not, Or
from regard.testing.strategies import masks

IDS = torch.tensor([0, 0, 1, 1, 1])
LENGTHS = torch.tensor([2, 5])
VALID = torch.tensor([[True, False, True]])
TABLE = torch.ones(3, 3, dtype=torch.bool)


def even(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q + k) % 2 == 0


DISTINCT = [
    rg.Everything(),
    rg.Nothing(),
    rg.Causal(),
    rg.SlidingWindow(2),
    rg.SlidingWindow(2, 1),
    rg.SlidingWindow(None),
    rg.Prefix(2),
    rg.Chunked(2),
    rg.Dilated(2),
    rg.Document(IDS),
    rg.Document(IDS, IDS),
    rg.Padding(LENGTHS),
    rg.Padding.from_valid(VALID),
    rg.Dense(TABLE),
    rg.Predicate(even),
    rg.Predicate(lambda b, h, q, k: q >= k),
    rg.Causal() & rg.Prefix(2),
    rg.Causal() | rg.Prefix(2),
    ~rg.Causal(),
    ~(rg.Causal() & rg.Prefix(2)),
]


def test_different_masks_are_different() -> None:
    for n, left in enumerate(DISTINCT):
        for m, right in enumerate(DISTINCT):
            assert (left == right) is (n == m), (left, right)
            assert left.equal(right) is (n == m), (left, right)
    assert len(set(DISTINCT)) == len(DISTINCT)


@given(masks())
def test_a_mask_equals_a_copy_over_the_same_tensors(mask: rg.Mask) -> None:
    copy = mask.map(lambda t: t)
    assert copy == mask
    assert hash(copy) == hash(mask)
    assert copy.equal(mask)


@given(masks())
def test_equal_goes_by_content_and_equality_by_identity(mask: rg.Mask) -> None:
    clone = mask.map(torch.clone)
    assert clone.equal(mask)
    assert (clone == mask) is (not mask.tensors())


def test_equal_sees_another_value_shape_and_structure() -> None:
    assert rg.Document(IDS).equal(rg.Document(IDS.clone()))
    assert not rg.Document(IDS).equal(rg.Document(IDS + 1))
    assert not rg.Document(IDS).equal(rg.Document(IDS[None]))
    causal_docs = rg.Causal() & rg.Document(IDS)
    assert causal_docs.equal(rg.Document(IDS.clone()) & rg.Causal())
    assert not causal_docs.equal(rg.Causal() | rg.Document(IDS))
    assert (~causal_docs).equal(~(rg.Document(IDS.clone()) & rg.Causal()))


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: ~m, lambda m: rg.Causal() & m, lambda m: m | rg.Prefix(1)])
def test_a_tensor_changed_in_place_changes_the_hash(wrap) -> None:  # type: ignore[no-untyped-def]
    ids = IDS.clone()
    mask = wrap(rg.Document(ids))
    before = hash(mask)
    assert hash(mask) == before
    ids[0] = 7
    assert hash(mask) != before


def test_a_mask_is_no_other_kind_of_value() -> None:
    assert rg.Causal() != "Causal()"
    assert rg.Causal() != object()
    assert rg.Causal().__eq__(1) is NotImplemented
    assert (rg.Causal() & rg.Prefix(1)).__eq__(1) is NotImplemented


TENSOR_FREE = st.sampled_from([m for m in DISTINCT if not m.tensors() and "Predicate" not in repr(m)])


@st.composite
def tensor_free(draw: st.DrawFn, depth: int = 3) -> rg.Mask:
    if depth == 0:
        return draw(TENSOR_FREE)
    left, right = draw(tensor_free(depth - 1)), draw(tensor_free(depth - 1))
    return draw(st.sampled_from([left & right, left | right, ~left, left]))


@given(tensor_free())
def test_the_repr_of_a_tensor_free_mask_evaluates_back(mask: rg.Mask) -> None:
    assert eval(repr(mask), {name: getattr(rg, name) for name in dir(rg)}) == mask


def test_masks_made_in_inference_mode_have_a_hash() -> None:
    with torch.inference_mode():
        mask = rg.Dense(TABLE.clone()) & rg.Causal()
    assert hash(mask) == hash(mask)


def test_the_repr_puts_parentheses_where_they_are_needed() -> None:
    a, b, c = rg.Causal(), rg.Prefix(1), rg.Dilated(2)
    assert repr((a | b) & c) == "(Causal() | Prefix(1)) & Dilated(2)"
    assert repr((a & b) | c) == "Causal() & Prefix(1) | Dilated(2)"
    assert repr(~(a & b)) == "~(Causal() & Prefix(1))"
    assert repr(~a & b) == "~Causal() & Prefix(1)"


def test_the_repr_of_a_tensor_is_its_dtype_and_shape() -> None:
    assert repr(rg.Document(IDS.int())) == "Document(<int32 (5,)>)"
    assert repr(rg.Document(IDS, IDS)) == "Document(<int64 (5,)>, <int64 (5,)>)"
    assert repr(rg.Padding(LENGTHS)) == "Padding(<int64 (2,)>)"
    assert repr(rg.Padding.from_valid(VALID)) == "Padding.from_valid(<bool (1, 3)>)"
    assert repr(rg.Dense(TABLE)) == "Dense(<bool (3, 3)>)"
    assert repr(rg.Predicate(even)) == "Predicate(even)"


def test_to_and_map_reach_every_tensor() -> None:
    mask = (
        (rg.Causal() & rg.Document(IDS, IDS)) | ~(rg.Padding(LENGTHS) & rg.Padding.from_valid(VALID)) | rg.Dense(TABLE)
    )
    assert [t.device.type for t in mask.to("meta").tensors()] == ["meta"] * 5
    assert [tuple(t.shape) for t in mask.tensors()] == [(5,), (5,), (2,), (1, 3), (3, 3)]
    assert [t.dtype for t in mask.map(lambda t: t if t.dtype is torch.bool else t.int()).tensors()] == [
        torch.int32, torch.int32, torch.int32, torch.bool, torch.bool,
    ]  # fmt: skip
    assert repr(mask.to("meta")) == repr(mask)
    assert rg.Causal().to("meta") == rg.Causal()


def test_kinds_of_expression() -> None:
    assert isinstance(rg.Causal() & rg.Prefix(1), And)
    assert isinstance(rg.Causal() | rg.Prefix(1), Or)
    assert isinstance(~rg.Causal(), Not)

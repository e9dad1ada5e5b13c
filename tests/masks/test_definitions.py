"""Every primitive against its definition, pair by pair in plain Python, wherever queries and keys may stand."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard._coordinates import Frame
from regard.testing.strategies import framed_masks

B, H, LQ, LK = 2, 3, 5, 7
IDS = torch.tensor([[3, 3, 0, 0, 0, 5, 5, 5], [1, 1, 1, 1, 2, 1, 1, 9]])
K_IDS = torch.tensor([3, 0, 0, 5, 5, 1, 2])
LENGTHS = torch.tensor([3, 7])
VALID = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 0, 1, 0, 1, 1]], dtype=torch.bool)
TABLE = torch.rand(B, H, LQ, LK, generator=torch.Generator().manual_seed(0)) > 0.5

Rule = Callable[[int, int, int, int, int, int], bool]
"""``(b, h, i, j, q, k) -> may attend``."""


def document(ids: list[int], k_ids: list[int], q: int, k: int) -> bool:
    return 0 <= q < len(ids) and 0 <= k < len(k_ids) and ids[q] == k_ids[k]


RULES: list[tuple[rg.Mask, Rule]] = [
    (rg.Everything(), lambda b, h, i, j, q, k: True),
    (rg.Nothing(), lambda b, h, i, j, q, k: False),
    (rg.Causal(), lambda b, h, i, j, q, k: k <= q),
    (rg.SlidingWindow(2), lambda b, h, i, j, q, k: 0 <= q - k <= 2),
    (rg.SlidingWindow(0, 0), lambda b, h, i, j, q, k: q == k),
    (rg.SlidingWindow(3, 1), lambda b, h, i, j, q, k: -1 <= q - k <= 3),
    (rg.SlidingWindow(None, 2), lambda b, h, i, j, q, k: k - q <= 2),
    (rg.SlidingWindow(2, None), lambda b, h, i, j, q, k: q - k <= 2),
    (rg.SlidingWindow(None, None), lambda b, h, i, j, q, k: True),
    (rg.SlidingWindow.of_width(3), lambda b, h, i, j, q, k: 0 <= q - k < 3),
    (rg.Prefix(0), lambda b, h, i, j, q, k: k < 0),
    (rg.Prefix(3), lambda b, h, i, j, q, k: k < 3),
    (rg.Chunked(1), lambda b, h, i, j, q, k: q == k),
    (rg.Chunked(3), lambda b, h, i, j, q, k: q // 3 == k // 3),
    (rg.Dilated(1), lambda b, h, i, j, q, k: True),
    (rg.Dilated(3), lambda b, h, i, j, q, k: (q - k) % 3 == 0),
    (rg.Document(IDS), lambda b, h, i, j, q, k: document(IDS[b].tolist(), IDS[b].tolist(), q, k)),
    (rg.Document(IDS[1].int()), lambda b, h, i, j, q, k: document(IDS[1].tolist(), IDS[1].tolist(), q, k)),
    (rg.Document(IDS[:1]), lambda b, h, i, j, q, k: document(IDS[0].tolist(), IDS[0].tolist(), q, k)),
    (rg.Padding(LENGTHS), lambda b, h, i, j, q, k: k < LENGTHS.tolist()[b]),
    (rg.Padding(LENGTHS[:1]), lambda b, h, i, j, q, k: k < 3),
    (rg.Padding.from_valid(VALID), lambda b, h, i, j, q, k: VALID.tolist()[b][j]),
    (rg.Padding.from_valid(VALID[1:]), lambda b, h, i, j, q, k: VALID.tolist()[1][j]),
    (rg.Dense(TABLE), lambda b, h, i, j, q, k: TABLE.tolist()[b][h][i][j]),
    (rg.Dense(TABLE[:, :1]), lambda b, h, i, j, q, k: TABLE.tolist()[b][0][i][j]),
    (rg.Dense(TABLE[1, 2]), lambda b, h, i, j, q, k: TABLE.tolist()[1][2][i][j]),
    (rg.Dense(TABLE[0, :, :1]), lambda b, h, i, j, q, k: TABLE.tolist()[0][h][0][j]),
    (rg.Dense(TABLE[0, 0, :, :1]), lambda b, h, i, j, q, k: TABLE.tolist()[0][0][i][0]),
    (rg.Dense(torch.tensor(True)), lambda b, h, i, j, q, k: True),
    (
        rg.Predicate(lambda b, h, q, k: (q + k + h + b) % 3 == 1),
        lambda b, h, i, j, q, k: (q + k + h + b) % 3 == 1,
    ),
]

POSITIONS: dict[str, tuple[Tensor | None, Tensor | None]] = {
    "default": (None, None),
    "queries-only": (torch.tensor([0, 6, 3, 3, -2]), None),
    "keys-only": (None, torch.tensor([9, -1, 4, 4, 0, 2, 1])),
    "out-of-range": (torch.tensor([-9, 90, 7, 8, 6]), torch.tensor([-9, -1, 6, 7, 8, 9, 90])),
    "ring-buffer": (torch.tensor([3, 4, 5, 6, 7]), torch.tensor([4, 5, 6, 7, 1, 2, 3])),
    "batched": (
        torch.tensor([[0, 1, 2, 3, 4], [6, 5, -4, 3, 3]]),
        torch.tensor([[2, 3, 4, 5, 6, 7, 8], [6, 0, 5, 1, 4, 2, 3]]),
    ),
}


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS.keys())
@pytest.mark.parametrize(("mask", "rule"), RULES, ids=lambda x: repr(x) if isinstance(x, rg.Mask) else "")
def test_dense_holds_the_definition_pair_by_pair(
    mask: rg.Mask, rule: Rule, positions: tuple[Tensor | None, Tensor | None]
) -> None:
    q_pos, k_pos = (
        torch.as_tensor(default if given is None else given).expand(B, -1).tolist()
        for given, default in zip(positions, (torch.arange(LK - LQ, LK), torch.arange(LK)), strict=True)
    )
    got = mask.dense(LQ, LK, *positions, batch=B, heads=H).expand(B, H, LQ, LK).tolist()
    for b, h, i, j in product(range(B), range(H), range(LQ), range(LK)):
        assert got[b][h][i][j] is rule(b, h, i, j, q_pos[b][i], k_pos[b][j]), (b, h, i, j)


def test_document_of_its_own_for_the_keys_goes_by_position() -> None:
    mask = rg.Document(IDS, K_IDS)
    q_positions, k_positions = torch.arange(-1, LQ - 1), torch.arange(1, LK + 1)
    got = mask.dense(LQ, LK, q_positions, k_positions).expand(B, 1, LQ, LK).tolist()
    for b, i, j in product(range(B), range(LQ), range(LK)):
        assert got[b][0][i][j] is document(IDS[b].tolist(), K_IDS.tolist(), i - 1, j + 1), (b, i, j)


@given(framed_masks(), st.data())
def test_a_tile_and_single_pairs_are_parts_of_the_whole(case: tuple[rg.Mask, Frame], data: st.DataObject) -> None:
    mask, frame = case
    shape = (frame.batch, frame.heads, frame.q_len, frame.k_len)
    whole = mask.over(frame).expand(shape)
    ends = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in shape]
    batch, heads, rows, cols = (slice(*pair) for pair in ends)
    tile = mask.allowed(frame.tile(rows, cols, batch, heads))
    assert tile.expand(whole[batch, heads, rows, cols].shape).equal(whole[batch, heads, rows, cols])
    b, h, i, j = torch.ones(shape).nonzero(as_tuple=True)
    assert mask.allowed(frame.at(b, h, i, j)).flatten().expand(len(b)).equal(whole[b, h, i, j])


@given(framed_masks())
def test_dense_is_bool_and_broadcasts_to_the_call(case: tuple[rg.Mask, Frame]) -> None:
    mask, frame = case
    dense = mask.dense(
        frame.q_len, frame.k_len, frame.q_positions, frame.k_positions, batch=frame.batch, heads=frame.heads
    )
    assert dense.dtype is torch.bool
    assert dense.ndim == 4
    assert dense.shape[2:] == (frame.q_len, frame.k_len)
    assert dense.shape[0] in (1, frame.batch)
    assert dense.shape[1] in (1, frame.heads)


def test_default_positions_are_bottom_right() -> None:
    assert rg.Causal().dense(1, 4).all(), "one decoding step sees its whole past"
    assert rg.Causal().dense(4, 2)[0, 0].tolist() == [[False, False], [False, False], [True, False], [True, True]]


def test_a_window_counts_other_keys() -> None:
    assert rg.SlidingWindow(2).dense(9, 9).sum(-1).max() == 3
    assert rg.SlidingWindow.of_width(3) == rg.SlidingWindow(2, 0)
    assert rg.SlidingWindow(0).dense(4, 4)[0, 0].equal(torch.eye(4, dtype=torch.bool))


def test_documents_from_lengths_and_cumulative_lengths() -> None:
    ids = torch.tensor([0, 0, 2, 2, 2])
    assert rg.Document.from_lengths([2, 0, 3]).equal(rg.Document(ids))
    assert rg.Document.from_lengths(torch.tensor([2, 0, 3])).equal(rg.Document(ids))
    assert rg.Document.from_cu_seqlens(torch.tensor([0, 2, 2, 5], dtype=torch.int32)).equal(rg.Document(ids))
    assert rg.Document.from_lengths([]).ids.shape == (0,)


def test_batch_and_heads_are_those_of_the_tensors() -> None:
    mask = (rg.Causal() & rg.Padding(LENGTHS)) | ~rg.Dense(TABLE[:1])
    assert (mask.batch, mask.heads) == (B, H)
    assert (rg.Causal().batch, rg.Causal().heads) == (1, 1)
    assert rg.Document(IDS, K_IDS).batch == B
    assert mask.dense(LQ, LK).shape == (B, H, LQ, LK)

"""The published numbers: S. Raschka, Build a Large Language Model (From Scratch), 2024, chapter 3, its six tokens.

Each tensor below is printed in that chapter's notebook (ch03/01_main-chapter-code/ch03.ipynb, rasbt/LLMs-from-scratch)
to four decimals, so half a unit of the fourth is the most a correct value may differ.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import regard as rg

SIX_TOKENS = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)

SIMPLE_SCORES = [
    [0.9995, 0.9544, 0.9422, 0.4753, 0.4576, 0.6310],
    [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865],
    [0.9422, 1.4754, 1.4570, 0.8296, 0.7154, 1.0605],
    [0.4753, 0.8434, 0.8296, 0.4937, 0.3474, 0.6565],
    [0.4576, 0.7070, 0.7154, 0.3474, 0.6654, 0.2935],
    [0.6310, 1.0865, 1.0605, 0.6565, 0.2935, 0.9450],
]
SIMPLE_WEIGHTS = [
    [0.2098, 0.2006, 0.1981, 0.1242, 0.1220, 0.1452],
    [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581],
    [0.1390, 0.2369, 0.2326, 0.1242, 0.1108, 0.1565],
    [0.1435, 0.2074, 0.2046, 0.1462, 0.1263, 0.1720],
    [0.1526, 0.1958, 0.1975, 0.1367, 0.1879, 0.1295],
    [0.1385, 0.2184, 0.2128, 0.1420, 0.0988, 0.1896],
]
SIMPLE_CONTEXT = [
    [0.4421, 0.5931, 0.5790],
    [0.4419, 0.6515, 0.5683],
    [0.4431, 0.6496, 0.5671],
    [0.4304, 0.6298, 0.5510],
    [0.4671, 0.5910, 0.5266],
    [0.4177, 0.6503, 0.5645],
]
V1_OUTPUT = [
    [0.2996, 0.8053],
    [0.3061, 0.8210],
    [0.3058, 0.8203],
    [0.2948, 0.7939],
    [0.2927, 0.7891],
    [0.2990, 0.8040],
]
V2_OUTPUT = [
    [-0.0739, 0.0713],
    [-0.0748, 0.0703],
    [-0.0749, 0.0702],
    [-0.0760, 0.0685],
    [-0.0763, 0.0679],
    [-0.0754, 0.0693],
]
V2_WEIGHTS = [
    [0.1921, 0.1646, 0.1652, 0.1550, 0.1721, 0.1510],
    [0.2041, 0.1659, 0.1662, 0.1496, 0.1665, 0.1477],
    [0.2036, 0.1659, 0.1662, 0.1498, 0.1664, 0.1480],
    [0.1869, 0.1667, 0.1668, 0.1571, 0.1661, 0.1564],
    [0.1830, 0.1669, 0.1670, 0.1588, 0.1658, 0.1585],
    [0.1935, 0.1663, 0.1666, 0.1542, 0.1666, 0.1529],
]
V2_CAUSAL_WEIGHTS = [
    [1.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
    [0.5517, 0.4483, 0.0000, 0.0000, 0.0000, 0.0000],
    [0.3800, 0.3097, 0.3103, 0.0000, 0.0000, 0.0000],
    [0.2758, 0.2460, 0.2462, 0.2319, 0.0000, 0.0000],
    [0.2175, 0.1983, 0.1984, 0.1888, 0.1971, 0.0000],
    [0.1935, 0.1663, 0.1666, 0.1542, 0.1666, 0.1529],
]
WRAPPER_OUTPUT = [
    [-0.4519, 0.2216, 0.4772, 0.1063],
    [-0.5874, 0.0058, 0.5891, 0.3257],
    [-0.6300, -0.0632, 0.6202, 0.3860],
    [-0.5675, -0.0843, 0.5478, 0.3589],
    [-0.5526, -0.0981, 0.5321, 0.3428],
    [-0.5299, -0.1081, 0.5077, 0.3493],
]
MULTI_HEAD_OUTPUT = [
    [0.3190, 0.4858],
    [0.2943, 0.3897],
    [0.2856, 0.3593],
    [0.2693, 0.3873],
    [0.2639, 0.3928],
    [0.2575, 0.4028],
]
DROPOUT_PICTURE = [
    [2, 2, 0, 2, 2, 0],
    [0, 0, 0, 2, 0, 2],
    [2, 2, 2, 2, 0, 2],
    [0, 2, 2, 0, 0, 2],
    [0, 2, 0, 2, 0, 2],
    [0, 2, 2, 2, 2, 0],
]


def assert_published(actual: Tensor, published: Sequence[float] | Sequence[Sequence[float]]) -> None:
    expected = torch.tensor(published, dtype=torch.float32)
    torch.testing.assert_close(actual.detach().expand_as(expected), expected, rtol=0, atol=5.1e-5)


def test_scores_weights_and_context_vectors_without_weights() -> None:
    simple = rg.nn.SimpleSelfAttention()
    steps = simple.steps(SIX_TOKENS)
    assert_published(steps.scores, SIMPLE_SCORES)
    assert_published(steps.weights, SIMPLE_WEIGHTS)
    assert_published(steps.context, SIMPLE_CONTEXT)
    assert_published(simple(SIX_TOKENS), SIMPLE_CONTEXT)


def test_self_attention_v1_under_seed_123() -> None:
    torch.manual_seed(123)
    module = rg.nn.SelfAttentionV1(3, 2)
    steps = module.steps(SIX_TOKENS)
    assert_published(module(SIX_TOKENS), V1_OUTPUT)
    assert_published(steps.queries[1], [0.4306, 1.4551])
    assert_published(steps.scores[1] * 2**0.5, [1.2705, 1.8524, 1.8111, 1.0795, 0.5577, 1.5440])
    assert_published(steps.weights[1], [0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820])


def test_self_attention_v2_under_seed_789() -> None:
    torch.manual_seed(789)
    module = rg.nn.SelfAttentionV2(3, 2)
    assert_published(module(SIX_TOKENS), V2_OUTPUT)
    assert_published(module.steps(SIX_TOKENS).weights, V2_WEIGHTS)


def test_causal_weights_of_the_v2_module() -> None:
    torch.manual_seed(789)
    module = rg.nn.CausalAttention(3, 2, context_length=6, dropout=0.0)
    assert_published(module.steps(SIX_TOKENS).weights, V2_CAUSAL_WEIGHTS)


@pytest.mark.parametrize(
    ("kind", "more", "published"),
    [
        (rg.nn.CausalAttention, (), [row[:2] for row in WRAPPER_OUTPUT]),
        (rg.nn.MultiHeadAttentionWrapper, (2,), WRAPPER_OUTPUT),
        (rg.nn.MultiHeadAttention, (2,), MULTI_HEAD_OUTPUT),
    ],
    ids=["causal", "wrapper", "multi_head"],
)
def test_modules_under_seed_123_on_a_batch_of_two(
    kind: type[torch.nn.Module], more: tuple[int, ...], published: list[list[float]]
) -> None:
    torch.manual_seed(123)
    module = kind(3, 2, 6, 0.0, *more)
    out = module(torch.stack((SIX_TOKENS, SIX_TOKENS)))
    assert_published(out[0], published)
    assert_published(out[1], published)


def test_dropout_picture_under_seed_123() -> None:
    torch.manual_seed(123)
    assert_published(torch.nn.Dropout(0.5)(torch.ones(6, 6)), DROPOUT_PICTURE)

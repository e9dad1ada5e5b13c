"""FlexAttention, given regard's own masks and score changes, gives the oracle's answer (uncompiled, on a CPU)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard._call import Call, make_call
from regard.backends.flex import Flex, block_mask, refused_on_cuda
from regard.masks import Coverage
from regard.testing.tolerance import assert_close_to_oracle

BATCH, HEADS, KV_HEADS, Q_LEN, K_LEN = 2, 4, 2, 29, 37
TABLES = torch.Generator().manual_seed(3)


def operands(q_len: int = Q_LEN, k_len: int = K_LEN, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    q = torch.randn(BATCH, HEADS, q_len, 7, **options)
    k = torch.randn(BATCH, KV_HEADS, k_len, 7, **options)
    v = torch.randn(BATCH, KV_HEADS, k_len, 5, **options)
    return q, k, v


def some(*shape: int) -> Tensor:
    return torch.rand(shape, generator=TABLES) > 0.4


def relative() -> rg.RelativeBias:
    made = rg.RelativeBias(HEADS, buckets=8, max_distance=20)
    with torch.no_grad():
        made.table.copy_(torch.randn(8, HEADS, generator=TABLES))
    return made.requires_grad_(False)


MASKS = [
    None,
    rg.Causal(),
    rg.SlidingWindow(None, None),
    rg.Nothing(),
    rg.Padding(torch.tensor([3, 0])),
    rg.Padding(torch.tensor([5])),
    rg.Padding.from_valid(some(BATCH, K_LEN)),
    rg.Document(torch.arange(K_LEN) // 7),
    rg.Document(torch.randint(0, 3, (BATCH, K_LEN), generator=TABLES)),
    rg.Dense(some(BATCH, HEADS, Q_LEN, K_LEN)),
    rg.Dense(some(HEADS, 1, K_LEN)),
    rg.Causal() & rg.SlidingWindow(4) | rg.Prefix(2),
    ~rg.Chunked(5) & rg.Dilated(3),
    rg.Predicate(lambda b, h, q, k: (q + k) % 3 != (b + h) % 3),
]
SCORE_MODS = [
    None,
    rg.Softcap(2.0),
    rg.Alibi.for_heads(HEADS),
    rg.Bias(torch.randn(HEADS, Q_LEN, 1, generator=TABLES)),
    relative(),
    [rg.ScoreMod(lambda s, b, h, q, k: s * 0.5 + h), rg.Softcap(3.0)],
]


class TestAgainstTheOracle:
    @pytest.mark.parametrize("mask", MASKS, ids=repr)
    @pytest.mark.parametrize("score_mod", SCORE_MODS, ids=repr)
    def test_out_and_lse(self, mask: rg.Mask | None, score_mod: Any) -> None:
        q, k, v = operands()
        arguments: dict[str, Any] = {"mask": mask, "score_mod": score_mod, "sinks": torch.randn(HEADS)}
        for given in (arguments, arguments | {"sinks": None}):
            assert_close_to_oracle(run(q, k, v, **given), q, k, v, **given)

    def test_explicit_positions(self) -> None:
        q, k, v = operands()
        arguments: dict[str, Any] = {
            "mask": rg.Causal() & rg.Document(torch.arange(K_LEN) // 7),
            "score_mod": rg.Alibi.for_heads(HEADS),
            "q_positions": torch.randint(0, K_LEN, (BATCH, Q_LEN)),
            "k_positions": torch.randperm(K_LEN),
        }
        assert_close_to_oracle(run(q, k, v, **arguments), q, k, v, **arguments)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_dtypes(self, dtype: torch.dtype) -> None:
        q, k, v = operands(dtype=dtype)
        found = run(q, k, v, mask=rg.Causal())
        assert found["out"].dtype == dtype
        assert_close_to_oracle(found, q, k, v, mask=rg.Causal())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision_is_computed_in_float32(self, dtype: torch.dtype) -> None:
        q, k, v = operands(dtype=dtype)
        wide = run(*(x.float() for x in (q, k, v)), mask=rg.Causal())
        with torch.autocast("cpu", dtype):
            found = run(q, k, v, mask=rg.Causal())
        assert torch.equal(found["out"], wide["out"].to(dtype))
        assert torch.equal(found["lse"], wide["lse"])

    def test_hidden_not_a_numbers_reach_nothing(self) -> None:
        allowed = some(BATCH, 1, Q_LEN, K_LEN)
        allowed[..., 4, :] = False
        allowed[..., 6] = False
        q, k, v = operands()
        clean = run(q, k, v, mask=rg.Dense(allowed))
        q[:, :, 4], k[:, :, 6], v[:, :, 6] = torch.nan, torch.nan, torch.inf
        dirty = run(q, k, v, mask=rg.Dense(allowed))
        assert torch.equal(clean["out"], dirty["out"])
        assert not dirty["out"][:, :, 4].any()
        assert (dirty["lse"][:, :, 4] == -torch.inf).all()

    def test_operands_that_require_gradients(self) -> None:
        q, k, v = operands(requires_grad=True)
        with torch.no_grad():
            assert_close_to_oracle(rg.attention(q, k, v, backend="flex"), q, k, v)


class TestBlockMask:
    @pytest.mark.parametrize("mask", [m for m in MASKS if m is not None and m.extent == (None, None)], ids=repr)
    def test_blocks_are_those_of_the_mask(self, mask: rg.Mask) -> None:
        length = 521
        frame = mask.frame(length, length)
        if isinstance(mask, rg.Document):
            mask = rg.Document(torch.arange(length) // 200)
        made = block_mask(mask, frame)
        right = mask.dense(length, length).expand(-1, -1, length, length)
        ragged = torch.nn.functional.pad(right, (0, -length % 128, 0, -length % 128))
        tiles = ragged.unflatten(3, (-1, 128)).unflatten(2, (-1, 128)).movedim(4, 3).flatten(4)
        full = listed(made.full_kv_num_blocks, made.full_kv_indices)
        partial = listed(made.kv_num_blocks, made.kv_indices)
        assert not (full & partial).any()
        assert bool((tiles.all(-1) | ~full).all()), "a FULL block hides a pair"
        assert bool((full | partial | ~tiles.any(-1)).all()), "a block with visible pairs is skipped"
        assert made.shape[-2:] == (length, length)

    def test_causal_skips_and_leaves_unmasked_what_it_can(self) -> None:
        made = block_mask(rg.Causal(), rg.Causal().frame(512, 512))
        assert made.kv_num_blocks.tolist() == [[[1, 1, 1, 1]]]
        assert made.full_kv_num_blocks is not None
        assert made.full_kv_num_blocks.tolist() == [[[0, 1, 2, 3]]]

    def test_a_ragged_last_block_is_asked_for_its_pairs(self) -> None:
        everything = rg.SlidingWindow(None, None)
        made = block_mask(everything, everything.frame(130, 300))
        grid = torch.full((2, 3), int(Coverage.PARTIAL))
        grid[0, :2] = int(Coverage.FULL)
        assert made.full_kv_num_blocks is not None
        assert made.full_kv_num_blocks[0, 0].tolist() == (grid == Coverage.FULL).sum(1).tolist()
        assert made.kv_num_blocks[0, 0].tolist() == (grid == Coverage.PARTIAL).sum(1).tolist()

    def test_follows_a_mask_that_is_changed_in_place(self) -> None:
        ids = torch.zeros(K_LEN, dtype=torch.int64)
        mask = rg.Document(ids)
        q, k, v = operands()
        for _ in range(2):
            assert_close_to_oracle(run(q, k, v, mask=mask), q, k, v, mask=mask)
            ids[20:] += 1


class TestRefusals:
    def test_a_gradient_on_a_cpu(self) -> None:
        with pytest.raises(rg.UnsupportedError, match="no backward pass on cpu"):
            rg.attention(*operands(requires_grad=True), backend="flex")

    def test_dropout(self) -> None:
        with pytest.raises(rg.UnsupportedError, match=r"dropout_p=0\.1"):
            rg.attention(*operands(), dropout_p=0.1, backend="flex")

    @pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
    def test_empty_tensors(self, sizes: tuple[int, int]) -> None:
        with pytest.raises(rg.UnsupportedError, match="takes no empty tensors"):
            rg.attention(*operands(*sizes), backend="flex")

    @pytest.mark.parametrize(
        ("made", "reason"),
        [
            (make_call(*operands(dtype=torch.float64)), "has no float64 kernel on cuda"),
            (make_call(*operands()), "needs at least 16 features on cuda, and a head has 5"),
            (
                make_call(*operands(), score_mod=rg.Alibi(torch.ones(HEADS, requires_grad=True))),
                "gives no gradient to the tensors of a score change",
            ),
            (
                make_call(*operands(requires_grad=True), score_mod=rg.ScoreMod(lambda s, b, h, q, k: s.sqrt())),
                "differentiates a function at hidden pairs too, where its derivative may be infinite",
            ),
        ],
    )
    def test_what_its_cuda_kernels_do_not_do(self, made: Call, reason: str) -> None:
        assert reason in refused_on_cuda(made)

    def test_is_not_picked_on_a_cpu(self) -> None:
        assert Flex().discouraged(make_call(*operands())) == [
            "holds all Lq x Lk scores at once on cpu, where it is not compiled"
        ]

    def test_torchs_switch_is_put_back(self) -> None:
        from torch.nn.attention import flex_attention as module

        def broken(s: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            raise RuntimeError("a mistake of the user's")

        with pytest.raises(RuntimeError, match="a mistake of the user's"):
            Flex().run(make_call(*operands(), score_mod=rg.ScoreMod(broken)))
        assert module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG is False


def run(q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> dict[str, Tensor]:
    call = make_call(q, k, v, **arguments).with_(wants_lse=True)
    assert Flex().unsupported(call) == []
    result = Flex().run(call)
    assert result.lse is not None
    return {"out": result.out, "lse": result.lse}


def listed(counts: Tensor | None, indices: Tensor | None) -> Tensor:
    """Which blocks FlexAttention's lists name, bool ``(B, H, rows, columns)``."""
    assert counts is not None
    assert indices is not None
    used = torch.arange(indices.shape[-1]) < counts[..., None]
    return torch.zeros_like(used).scatter(-1, indices.long(), used)

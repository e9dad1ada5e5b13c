"""Every head score against its dense definition, written out on the full matrix of weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import regard as rg
from regard import head_scores as hs
from regard.backends.native import library
from regard.weights import AttentionWeights, stream

L = 23
IDS = torch.randint(0, 6, (2, L), generator=torch.Generator().manual_seed(3))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


MASKS: dict[str, rg.Mask] = {
    "causal": rg.Causal(),
    "full": rg.Everything(),
    "window": rg.SlidingWindow(5),
    "two intervals": rg.Causal() & (rg.Prefix(2) | rg.SlidingWindow(3)),
    "documents": rg.Causal() & rg.Document((torch.arange(L) // 9)[None].expand(2, -1)),
    "left padding": rg.Causal() & rg.Padding.from_valid(torch.arange(L) >= torch.tensor([[0], [4]])),
    "dense": rg.Dense(normal(2, 4, L, L) > -0.5) & rg.Causal(),
    "dilated": rg.Causal() & rg.Dilated(2),
    "blind rows": rg.Causal() & ~rg.Prefix(3),
}
CHANGES: dict[str, dict[str, object]] = {
    "plain": {},
    "sinks": {"sinks": torch.tensor([0.5, -1.0, 2.0, 0.0])},
    "softcap, alibi": {"score_mod": [rg.Softcap(3.0), rg.Alibi.for_heads(4)]},
    "bias": {"score_mod": rg.Bias(normal(1, 4, L, L))},
}


@pytest.fixture(params=list(MASKS))
def mask(request: pytest.FixtureRequest) -> rg.Mask:
    return MASKS[request.param]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(params=list(CHANGES))
def layer(
    request: pytest.FixtureRequest, mask: rg.Mask, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> hs.Material:
    """Four query heads on two key heads, two entries, tiles of a few scores."""
    monkeypatch.setattr(stream, "BLOCK", (4, 5))
    monkeypatch.setattr(stream, "TILE", 60)
    q, k = (3 * normal(2, 4, L, 8)).to(dtype), normal(2, 2, L, 8).to(dtype)
    seen = rg.inspect(q, k, k, mask=mask, backend="reference", **CHANGES[request.param])  # type: ignore[arg-type]
    return material(seen.weights, norms=normal(2, 4, L).abs())


def material(weights: AttentionWeights, norms: Tensor | None = None, ids: Tensor | None = IDS) -> hs.Material:
    return hs.Material(weights._call, weights._lse, ids, norms)


def dense(of: hs.Material) -> Tensor:
    return AttentionWeights(of.call, of.lse).dense().double()


def mean(x: Tensor, of: hs.Material, rows: Tensor | None = None) -> Tensor:
    """Over the rows that see something."""
    sees = (of.lse > -math.inf) if rows is None else (of.lse > -math.inf) & rows
    return torch.stack(
        [torch.stack([x[b, h][sees[b, h]].mean() for h in range(x.shape[1])]) for b in range(x.shape[0])]
    )


def visible(of: hs.Material) -> Tensor:
    return of.call.mask.dense(L, L, batch=2, heads=4).expand(2, 4, L, L)


def first(of: hs.Material) -> list[int]:
    return [int(visible(of)[b].any(0).any(0).nonzero()[0]) for b in range(2)]


ROW, COL = torch.arange(L)[:, None], torch.arange(L)


def sink_mass(of: hs.Material, count: int) -> Tensor:
    a, start = dense(of), first(of)
    return mean(torch.stack([a[b, ..., start[b] : start[b] + count].sum(-1) for b in range(2)]), of)


def sink_rate(of: hs.Material) -> Tensor:
    a, start = dense(of), first(of)
    rows = torch.stack([torch.arange(L) >= start[b] for b in range(2)])[:, None]
    column = torch.stack([a[b, ..., start[b]] for b in range(2)])
    return (mean(column, of, rows) > 0.3).double()


def entropy_rows(of: hs.Material) -> Tensor:
    a = dense(of)
    h: Tensor = torch.special.entr(a).sum(-1)
    if of.call.sinks is not None:
        h = h + torch.special.entr(torch.exp(of.call.sinks.double()[:, None] - of.lse.double()))
    return h


def heavy(of: hs.Material) -> Tensor:
    c = dense(of).sum(-2).sort(-1, descending=True).values
    return c[..., : math.ceil(0.05 * L)].sum(-1) / c.sum(-1)


def outcomes(of: hs.Material) -> Tensor:
    return visible(of).sum(-1) + (of.call.sinks is not None)


def max_logit(of: hs.Material) -> Tensor:
    a = AttentionWeights(of.call, of.lse).dense().double()
    s = torch.log(a) + of.lse.double().clamp(min=-1e30)[..., None]
    return torch.where(a > 0, s, -math.inf).amax((-1, -2))


def equal_tokens(of: hs.Material, shift: int) -> Tensor:
    previous = torch.cat([torch.full((2, shift), -1), IDS[:, : L - shift]], 1)
    pattern = (IDS[:, :, None] == previous[:, None, :]) & (ROW - (1 - shift) >= COL)
    return mean((dense(of) * pattern[:, None]).sum(-1), of)


DEFINITIONS: dict[str, tuple[hs.HeadScore, Callable[[hs.Material], Tensor]]] = {
    "sink_mass_1": (hs.SinkMass(1), lambda of: sink_mass(of, 1)),
    "sink_mass_4": (hs.SinkMass(4), lambda of: sink_mass(of, 4)),
    "sink_rate": (hs.SinkRate(), sink_rate),
    "previous_token": (
        hs.PreviousToken(),
        lambda of: mean((dense(of) * (ROW - COL == 1)).sum(-1), of, torch.arange(L) >= 1),
    ),
    "offset_3": (hs.Offset(3), lambda of: mean((dense(of) * (ROW - COL == 3)).sum(-1), of, torch.arange(L) >= 3)),
    "offset_-2": (hs.Offset(-2), lambda of: mean((dense(of) * (COL - ROW == 2)).sum(-1), of, torch.arange(L) < L - 2)),
    "entropy": (hs.Entropy(), lambda of: mean(entropy_rows(of), of)),
    "effective_tokens": (hs.EffectiveTokens(), lambda of: mean(entropy_rows(of).exp(), of)),
    "relative_entropy": (
        hs.RelativeEntropy(),
        lambda of: mean(entropy_rows(of) / outcomes(of).clamp(min=2).log(), of, outcomes(of) >= 2),
    ),
    "confidence": (hs.Confidence(), lambda of: mean(dense(of).amax(-1), of)),
    "heavy_hitters": (hs.HeavyHitters(), heavy),
    "local_mass_4": (hs.LocalMass(4), lambda of: mean((dense(of) * ((ROW - COL).abs() <= 4)).sum(-1), of)),
    "mean_distance": (hs.MeanDistance(), lambda of: mean((dense(of) * (ROW - COL).abs()).sum(-1), of)),
    "max_logit": (hs.MaxLogit(), max_logit),
    "value_weighted": (
        hs.ValueWeighted(),
        lambda of: mean((dense(of) * of.value_norms[:, :, None]).sum(-1), of),  # type: ignore[index]
    ),
    "duplicate_token": (hs.DuplicateToken(), lambda of: equal_tokens(of, 0)),
    "prefix_matching": (hs.PrefixMatching(), lambda of: equal_tokens(of, 1)),
    "match_share": (
        hs.Match(rg.SlidingWindow(1)),
        lambda of: (dense(of) * ((ROW - COL >= 0) & (ROW - COL <= 1))).sum((-1, -2)) / dense(of).sum((-1, -2)),
    ),
    "match_difference": (
        hs.Match(rg.SlidingWindow(1), "difference"),
        lambda of: (
            1
            - ((dense(of) - ((ROW - COL >= 0) & (ROW - COL <= 1)).double()).abs() * visible(of)).sum((-1, -2))
            / visible(of).sum((-1, -2))
        ),
    ),
}


def test_every_score_is_its_dense_definition(layer: hs.Material) -> None:
    scores = [score for score, _ in DEFINITIONS.values()]
    found, missing = hs.scores_of(layer, scores)
    assert not missing
    for score, define in DEFINITIONS.values():
        torch.testing.assert_close(
            found[score.name], define(layer), atol=2e-6, rtol=2e-5, equal_nan=True, msg=score.name
        )


@pytest.mark.skipif(not library.supported(), reason="no kernels were built here")
def test_what_the_kernels_gather_is_no_other_score(layer: hs.Material, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("streamed tile by tile")

    monkeypatch.setattr("regard.head_scores.compute.stream", never)
    gathered = [hs.Entropy(), hs.EffectiveTokens(), hs.Confidence(), hs.HeavyHitters(), hs.MaxLogit()]
    found, _ = hs.scores_of(layer, gathered)
    for score in gathered:
        want = next(define for known, define in DEFINITIONS.values() if known.name == score.name)(layer)
        torch.testing.assert_close(found[score.name], want, atol=2e-6, rtol=2e-5, equal_nan=True, msg=score.name)


def test_a_learned_sink_has_its_share() -> None:
    q, k = normal(2, 4, L, 8), normal(2, 2, L, 8)
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0])
    of = material(rg.inspect(q, k, k, mask=rg.Causal(), sinks=sinks).weights)
    found, _ = hs.scores_of(of, [hs.LearnedSinkShare()])
    torch.testing.assert_close(found["learned_sink_share"], 1 - dense(of).sum(-1).mean(-1), atol=1e-6, rtol=1e-5)


def test_all_scores_of_a_layer_share_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    real = stream.stream

    def counted(*args: object, **kwargs: object) -> list[Tensor]:
        passes.append(len(args[2]))  # type: ignore[arg-type]
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("regard.head_scores.compute.stream", counted)
    q = normal(1, 2, L, 8)
    of = material(rg.inspect(q, q, q, mask=rg.Causal()).weights, ids=IDS[:1])
    hs.scores_of(of, hs.DEFAULT)
    assert len(passes) == 1
    passes.clear()
    hs.scores_of(of, [hs.SinkMass(4), hs.PreviousToken(), hs.SinkRate()])
    assert not passes


def test_induction_is_found_on_its_probe() -> None:
    ids = hs.induction_probe(50, 9, 2, bos=1)
    assert (ids[:, 0] == 1).all()
    assert (ids[:, 1:] != 1).all()
    length = ids.shape[1]
    # A head whose query is its token and whose key is the token before it, which is what induction heads compose.
    table = 12 * torch.nn.functional.normalize(normal(50, 32), dim=1)
    q = table[ids][:, None]
    k = table[ids.roll(1, 1)][:, None]
    weights = rg.inspect(q, k, k, mask=rg.Causal(), scale=1.0).weights
    of = hs.Material(weights._call, weights._lse, ids)
    found, _ = hs.scores_of(of, [hs.Induction(), hs.PrefixMatching()])
    i = torch.arange(10, length)
    expected = weights.dense().double()[:, :, i, i - 8].mean(-1)
    torch.testing.assert_close(found["induction"], expected, atol=1e-6, rtol=1e-5)
    # Less than 1 where the random tokens repeat among themselves.
    assert (found["induction"] > 0.6).all()
    assert hs.Induction().missing(hs.Material(weights._call, weights._lse, ids.roll(2, 1))) is not None


def test_retrieval_counts_copied_tokens() -> None:
    ids = torch.arange(20)[None].clone()
    ids[0, 12:15] = ids[0, 4:7]
    # The queries that generate positions 12, 13, 14 look at 4, 5 and, wrongly, at 7.
    q = torch.zeros(1, 1, 20, 20)
    for row, key in ((11, 4), (12, 5), (13, 7)):
        q[0, 0, row, key] = 30.0
    k = torch.eye(20)[None, None]
    weights = rg.inspect(q, k, k, mask=rg.Causal(), scale=1.0).weights
    of = hs.Material(weights._call, weights._lse, ids)
    retrieval, focused = hs.Retrieval((4, 7), (12, 15)), hs.QueryFocusedRetrieval((11, 14), (4, 7))
    found, _ = hs.scores_of(of, [retrieval, focused])
    assert found["retrieval"].tolist() == [[pytest.approx(2 / 3)]]
    expected = weights.dense()[0, 0, 11:14, 4:7].sum().item() / 3
    assert found["query_focused_retrieval"].item() == pytest.approx(expected, rel=1e-5)
    assert "no span" in str(hs.Retrieval((4, 40), (12, 15)).missing(of))


def test_rollout_is_the_product_of_matrices() -> None:
    layers = []
    for n in range(3):
        q, k = normal(2, 4, L, 8) + n, normal(2, 2, L, 8)
        layers.append(material(rg.inspect(q, k, k, mask=rg.Causal()).weights))
    x = torch.eye(L).double().expand(2, L, L)
    for one in layers:
        x = (dense(one).mean(1) + torch.eye(L)) / 2 @ x
    for token in (-1, 7):
        torch.testing.assert_close(hs.rollout(layers, token).double(), x[:, token], atol=1e-6, rtol=1e-5)
    with pytest.raises(rg.ArgumentError, match="one of the 23 tokens"):
        hs.rollout(layers, 23)
    q, k = normal(2, 4, 3, 8), normal(2, 2, L, 8)
    short = material(rg.inspect(q, k, k).weights)
    with pytest.raises(rg.ShapeError, match="every query"):
        hs.rollout([short])


@pytest.mark.parametrize("sinks", [None, torch.tensor([0.5, -1.0, 2.0, 0.0])])
def test_head_similarity_is_the_divergence_of_rows(sinks: Tensor | None) -> None:
    layers = []
    for n in range(2):
        q, k = normal(2, 4, L, 8) + n, normal(2, 2, L, 8)
        layers.append(material(rg.inspect(q, k, k, mask=rg.Causal(), sinks=sinks).weights))
    rows = [0, 7, 15, 22]
    p = torch.cat([dense(one) for one in layers], 1)[:, :, rows]
    p = torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1).clamp(min=0)
    left, right = p[:, :, None], p[:, None]
    mixed = (left + right) / 2
    js = torch.special.entr(mixed).sum(-1) - (torch.special.entr(left) + torch.special.entr(right)).sum(-1) / 2
    found = hs.head_similarity(layers, 4)
    torch.testing.assert_close(found.double(), js.mean((0, 3)), atol=2e-6, rtol=1e-4)
    assert found.max() <= math.log(2)


def test_explicit_positions_are_followed() -> None:
    # Keys in another order than their positions, and queries for some of them only.
    order = torch.randperm(L, generator=torch.Generator().manual_seed(5))
    q, k = normal(1, 4, L, 8), normal(1, 4, L, 8)
    of = material(rg.inspect(q, k, k, mask=rg.Causal()).weights, ids=None)
    rows = torch.tensor([3, 9, 20])
    shuffled = rg.inspect(
        q[:, :, rows], k[:, :, order], k[:, :, order], mask=rg.Causal(), q_positions=rows, k_positions=order
    )
    a = AttentionWeights(of.call, of.lse).dense().double()[:, :, rows]
    scores = [hs.PreviousToken(), hs.MeanDistance()]
    found, _ = hs.scores_of(material(shuffled.weights, ids=None), scores)
    expected = a[:, :, torch.arange(3), rows - 1].mean(-1)
    torch.testing.assert_close(found["previous_token"], expected, atol=1e-6, rtol=1e-5)
    distance = (a * (rows[:, None] - COL).abs()).sum(-1).mean(-1)
    torch.testing.assert_close(found["mean_distance"], distance, atol=1e-5, rtol=1e-5)

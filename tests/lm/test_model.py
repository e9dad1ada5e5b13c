"""The language model: causal, the same with caches, its loss by definition, its head tied."""

import math

import pytest
import torch
import torch.nn.functional as F

import regard as rg
from regard import lm

VARIANTS: dict[str, dict[str, object]] = {
    "rotary": {},
    "learned": {"positions": "learned"},
    "grouped": {"kv_heads": 1},
    "window": {"window": 3},
}


def small(**changes: object) -> lm.LanguageModel:
    sizes = lm.ModelConfig(vocabulary=17, context_length=13, width=30, layers=2, heads=3)
    return lm.LanguageModel(sizes.replace(**changes)).eval()


def some_ids(length: int = 11) -> torch.Tensor:
    return torch.randint(17, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_logit_depends_on_a_later_token(variant: str) -> None:
    model, ids = small(**VARIANTS[variant]), some_ids()
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 17
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7:] - after[:, 7:]).abs().amax() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_with_caches_are_one_pass(variant: str) -> None:
    model, ids = small(**VARIANTS[variant]), some_ids()
    caches = model.new_caches()
    parts = [model(part, caches=caches) for part in ids.split([4, 1, 1, 5], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), rtol=1e-4, atol=1e-5)


def test_a_window_is_seen_by_the_logits() -> None:
    plain, narrow = small(), small(window=3)
    narrow.load_state_dict(plain.state_dict())
    difference = (plain(some_ids()) - narrow(some_ids())).abs().amax(dim=(0, 2))
    assert difference[:4].max() < 1e-6 < 1e-4 < difference[4:].max()


def test_packed_documents_do_not_see_one_another() -> None:
    model, ids = small(positions="rotary"), some_ids()[:1]
    packed = model(ids, mask=rg.Document(torch.tensor([0] * 5 + [1] * 6)))
    torch.testing.assert_close(packed[:, 5:], model(ids[:, 5:]), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_mean_negative_log_probability() -> None:
    model, ids, targets = small(), some_ids(), some_ids().flip(0)
    p = model(ids).detach().softmax(-1)
    picked = [-math.log(p[b, i, targets[b, i]]) for b in range(2) for i in range(11)]
    assert float(model.loss(ids, targets).detach()) == pytest.approx(sum(picked) / len(picked), rel=1e-5)


def test_the_head_is_the_embedding() -> None:
    model = small()
    assert not [name for name in model.state_dict() if "head" in name]
    features: list[torch.Tensor] = []
    model.norm.register_forward_hook(lambda module, args, out: features.append(out))
    logits = model(some_ids())
    torch.testing.assert_close(logits, F.linear(features[0], model.embedding.weight))


def test_untrained_it_guesses() -> None:
    assert float(small().loss(some_ids(), some_ids().flip(0)).detach()) == pytest.approx(math.log(17), abs=0.1)


def test_presets_have_their_sizes() -> None:
    with torch.device("meta"):
        gpt2 = lm.LanguageModel(lm.preset("gpt2-small"))
    # GPT-2 small has 124,439,808 parameters; ours has no bias for queries, keys and values.
    assert gpt2.parameter_count() == 124_439_808 - 12 * 3 * 768
    assert lm.preset("small", vocabulary=79, layers=1).layers == 1


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: lm.preset("smal"), rg.ArgumentError, r"one of toy, small, .*got 'smal' \(did you mean 'small'"),
        (lambda: small(heads=4), rg.ShapeError, "got width=30 and heads=4. Choose a width that 8 divides"),
        (lambda: small(heads=10), rg.ShapeError, "rotary positions turn pairs"),
        (lambda: small(layers=0), rg.ArgumentError, "layers must be at least 1: got 0"),
        (lambda: small(positions="none"), rg.ArgumentError, "'rotary' or 'learned': got 'none'"),
        (lambda: small()(torch.zeros(1, 3)), rg.KindError, r"int64 tensor \(B, L\): got float32 \(1, 3\)"),
        (lambda: small()(some_ids(14)), rg.ShapeError, r"context_length=13 tokens: got \(2, 14\)"),
        (lambda: small()(some_ids()[0]), rg.ShapeError, r"ids are \(B, L\).*got \(11,\)"),
    ],
)
def test_what_does_not_fit_is_refused(make: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()  # type: ignore[operator]


def test_a_full_cache_is_refused() -> None:
    model, caches = small(), small().new_caches()
    model(some_ids(), caches=caches)
    with pytest.raises(rg.ShapeError, match=r"got \(2, 11\) after 11 tokens in the caches"):
        model(some_ids(), caches=caches)

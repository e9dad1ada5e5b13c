"""Generation: the likeliest token by hand, the filters by definition, the caches, the seed."""

from pathlib import Path

import pytest
import torch

import regard as rg
from regard import lm


@pytest.fixture(scope="module")
def model() -> lm.LanguageModel:
    torch.manual_seed(4)
    sizes = lm.ModelConfig(vocabulary=17, context_length=13, width=30, layers=2, heads=3, positions="learned")
    made = lm.LanguageModel(sizes)
    with torch.no_grad():
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def test_at_temperature_0_it_is_the_likeliest_token_of_a_pass_without_caches(model: lm.LanguageModel) -> None:
    got = list(lm.generate(model, [1, 2, 3], 10, lm.Sampling(temperature=0)))
    seen = [1, 2, 3]
    for _ in range(10):
        seen.append(int(model(torch.tensor([seen]))[0, -1].argmax()))
    assert got == seen[3:]
    assert len(set(got)) > 1


def test_it_goes_on_beyond_its_context_from_the_last_half(model: lm.LanguageModel) -> None:
    got = list(lm.generate(model, [1, 2, 3], 25, lm.Sampling(temperature=0)))
    seen, all_of_them = [1, 2, 3], []
    for _ in range(25):
        if len(seen) > 13:
            seen = seen[-6:]
        seen.append(int(model(torch.tensor([seen]))[0, -1].argmax()))
        all_of_them.append(seen[-1])
    assert got == all_of_them


def test_a_long_prompt_counts_by_its_end(model: lm.LanguageModel) -> None:
    prompt = [n % 17 for n in range(40)]
    assert list(lm.generate(model, prompt, 3)) == list(lm.generate(model, prompt[-13:], 3))


def test_the_seed_decides(model: lm.LanguageModel) -> None:
    draws = [list(lm.generate(model, [1], 12, lm.Sampling(seed=seed))) for seed in (1, 1, 2)]
    torch.manual_seed(5)
    assert draws[0] == draws[1] == list(lm.generate(model, [1], 12, lm.Sampling(seed=1)))
    assert draws[0] != draws[2]


def test_probabilities_by_definition() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0])
    p = logits.softmax(-1)
    torch.testing.assert_close(lm.Sampling(1.0).probabilities(logits), p)
    torch.testing.assert_close(lm.Sampling(0.5).probabilities(logits), (2 * logits).softmax(-1))
    torch.testing.assert_close(
        lm.Sampling(1.0, top_k=2).probabilities(logits), torch.tensor([p[0], 0, p[2], 0]) / (p[0] + p[2])
    )
    # p is 0.64, 0.09, 0.24, 0.03: two tokens reach 0.8, three 0.9, one 0.6.
    for top_p, kept in ((0.6, [0]), (0.8, [0, 2]), (0.9, [0, 1, 2]), (1.0, [0, 1, 2, 3])):
        got = lm.Sampling(1.0, top_p=top_p).probabilities(logits)
        assert got.nonzero().flatten().tolist() == kept
        torch.testing.assert_close(got[kept], p[kept] / p[kept].sum())
    torch.testing.assert_close(lm.Sampling(1.0, top_k=9).probabilities(logits), p)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: lm.Sampling(-1.0), "temperature must be at least 0: got -1.0"),
        (lambda: lm.Sampling(top_p=0.0), "top_p must be above 0 and at most 1: got 0.0"),
        (lambda: lm.Sampling(top_k=0), "top_k must be at least 1: got 0"),
    ],
)
def test_settings_outside_their_domain(make: object, match: str) -> None:
    with pytest.raises(rg.ArgumentError, match=match):
        make()  # type: ignore[operator]


def test_prompts_that_cannot_be_gone_on_from(model: lm.LanguageModel) -> None:
    with pytest.raises(rg.ArgumentError, match="at least one token: the prompt is empty"):
        next(lm.generate(model, [], 3))
    with pytest.raises(rg.ArgumentError, match=r"tokens go from 0 to 16: got \[17\]"):
        next(lm.generate(model, [17], 3))


def test_a_trained_run_generates_its_characters(whole_run: tuple[Path, lm.Run]) -> None:
    run, model = lm.load_run(whole_run[0])
    text = "".join(run.tokenizer.stream(lm.generate(model, run.tokenizer.encode("the "), 40)))
    assert len(text) == 40
    assert set(text) <= set("the cat sat on the mat and the dog lay on the log; ")

"""Associative recall: the task, the equal sizes, and that the experiment measures what it says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import regard as rg
from regard import recall
from regard.cli.main import main
from regard.recall.task import KEYS, VALUES

SMALL = recall.Experiment(
    distances=(3, 11), lengths=(3, 11), steps=200, batch=32, questions=16, width=32, tested=64, learning_rates=(5e-3,)
)


def test_the_answer_is_the_value_of_the_asked_key() -> None:
    given = recall.ask(7, 11, torch.Generator().manual_seed(0), questions=5)
    assert given.asked.shape == given.answers.shape == (7, 5)
    for b in range(7):
        items = dict(zip(given.keys[b].tolist(), given.values[b].tolist(), strict=True))
        assert len(items) == 11
        assert [items[key] for key in given.asked[b].tolist()] == given.answers[b].tolist()
    assert (
        len({keys.index(k) for keys, row in zip(given.keys.tolist(), given.asked.tolist(), strict=True) for k in row})
        > 5
    )


def test_the_test_asks_for_the_first_item() -> None:
    given = recall.ask(7, 11, torch.Generator().manual_seed(0))
    assert torch.equal(given.asked, given.keys[:, :1])
    assert torch.equal(given.answers, given.values[:, :1])


@pytest.mark.parametrize("kind", recall.KINDS)
def test_each_question_is_answered_as_if_it_came_alone(kind: str) -> None:
    torch.manual_seed(0)
    model = recall.Recaller(kind, 32, 30)
    given = recall.ask(3, 11, torch.Generator().manual_seed(0), questions=5)
    together = model(given)
    assert together.shape == (3, 5, VALUES)
    for n in range(5):
        alone = replace(given, asked=given.asked[:, n : n + 1], answers=given.answers[:, n : n + 1])
        torch.testing.assert_close(together[:, n : n + 1], model(alone))


@pytest.mark.parametrize(("kind", "gates"), [("GRU", 3), ("LSTM", 4)])
def test_a_recurrent_layer_begins_by_keeping_its_state(kind: str, gates: int) -> None:
    torch.manual_seed(0)
    mixer = recall.Recaller(kind, 32, 9).mixer
    assert isinstance(mixer, nn.RNNBase)
    hidden, weights = mixer.hidden_size, dict(mixer.named_parameters())
    for gate in weights["weight_hh_l0"].split(hidden):
        torch.testing.assert_close(gate @ gate.mT, torch.eye(hidden))
    bias = torch.zeros(gates, hidden)
    bias[1] = 1.0  # of the gate that multiplies the old state
    torch.testing.assert_close(weights["bias_ih_l0"] + weights["bias_hh_l0"], bias.flatten())
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            weights[name].zero_()
        state = torch.ones(1, 1, hidden)
        _, after = mixer(torch.zeros(1, 1, 32), state if kind == "GRU" else (state, state))
    torch.testing.assert_close(
        after if kind == "GRU" else after[1], torch.sigmoid(torch.tensor(1.0)).expand(1, 1, hidden)
    )


@pytest.mark.parametrize("width", [32, 64])
def test_the_layers_are_of_equal_size(width: int) -> None:
    sizes = {kind: recall.mixer_size(recall.Recaller(kind, width, 9)) for kind in recall.KINDS}
    assert sizes["attention"] == 4 * width * width + width
    for kind in ("GRU", "LSTM"):
        assert 0.9 * sizes["attention"] < sizes[kind] <= sizes["attention"]


def test_attention_learns_to_recall_and_the_seed_decides() -> None:
    steps: list[int] = []
    result = recall.run(SMALL, ("attention",), lambda kind, step: steps.append(step))
    assert min(result.accuracy["attention"]) > 0.9
    assert steps == list(range(1, 201))
    torch.manual_seed(77)
    assert recall.run(SMALL, ("attention",)).accuracy == result.accuracy


def test_each_model_takes_the_learning_rate_that_recalls_best() -> None:
    short = replace(SMALL, distances=(2, 3), lengths=(2, 3), steps=30)
    tried = replace(short, learning_rates=(1e-7, 1e-2, 1e-6), trial_steps=60)
    steps: list[int] = []
    result = recall.run(tried, ("attention",), lambda kind, step: steps.append(step))
    assert result.learning_rates == {"attention": 1e-2}
    assert steps == list(range(1, recall.total_steps(tried) + 1)) == list(range(1, 3 * 60 + 30 + 1))
    assert result.accuracy == recall.run(replace(short, learning_rates=(1e-2,)), ("attention",)).accuracy


def test_a_model_that_cannot_see_the_items_guesses() -> None:
    torch.manual_seed(0)
    model = recall.Recaller("GRU", 32, 99)
    given = recall.ask(2000, 8, torch.Generator().manual_seed(1))
    right = float((model(given).argmax(-1) == given.answers).float().mean())
    assert right == pytest.approx(1 / VALUES, abs=0.04)


def test_what_is_said_is_what_was_measured() -> None:
    shares = {"attention": [1.0, 0.99, 0.95], "GRU": [0.97, 0.6, 0.2], "LSTM": [0.5, 0.4, 0.3]}
    rates = {"attention": 5e-3, "GRU": 2e-2, "LSTM": 1e-2}
    result = recall.Result(recall.Experiment(distances=(8, 16, 32)), {}, shares, rates)
    assert result.statements() == [
        "learning rates: attention 0.005, GRU 0.02, LSTM 0.01, each the best of 0.005, 0.01, 0.02 in 300 steps.",
        "attention answers at least 9 in 10 questions at 8, 16, 32; at 32 it answers 95%.",
        "GRU answers at least 9 in 10 questions at 8; at 32 it answers 20%.",
        "LSTM answers at least 9 in 10 questions at none of the distances; at 32 it answers 30%.",
        "GRU keeps up with attention (within 5%) at 8.",
        "LSTM keeps up with attention (within 5%) at none of these distances.",
    ]


def test_to_guess_together_is_not_to_keep_up() -> None:
    shares = {"attention": [1.0, 0.13], "GRU": [0.99, 0.12]}
    result = recall.Result(recall.Experiment(distances=(8, 512), learning_rates=(0.01,)), {}, shares, {"GRU": 0.01})
    assert result.statements()[0] == "learning rates: GRU 0.01"
    assert result.statements()[-1] == "GRU keeps up with attention (within 5%) at 8."


def test_the_command_saves_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "recall"
    assert (
        main(
            [
                "recall",
                "--steps",
                "3",
                "--distances",
                "3",
                "5",
                "--learning-rates",
                "0.01",
                "--seed",
                "4",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    saved = json.loads((out / "recall.json").read_text())
    printed = capsys.readouterr().out
    assert saved["experiment"]["seed"] == 4
    again = json.loads(json.dumps(recall.Result.restore(saved).record()))
    assert again == saved
    assert saved["chance"] == 1 / VALUES
    assert list(saved["accuracy"]) == ["attention", "GRU", "LSTM"]
    for n, distance in enumerate((3, 5)):
        cells = next(line.split() for line in printed.splitlines() if line.strip().startswith(f"{distance} "))
        assert cells[1:] == [f"{shares[n]:.1%}" for shares in saved["accuracy"].values()]
    assert (out / "recall.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: recall.Experiment(distances=(8, KEYS + 1)), f"distances go from 1 to the {KEYS} different keys"),
        (lambda: recall.Experiment(lengths=()), "lengths go from 1 to the 512 different keys: got"),
        (lambda: recall.Experiment(learning_rates=()), "learning_rates are at least one, all above 0: got"),
        (lambda: recall.Experiment(steps=0), "steps must be at least 1: got 0"),
        (lambda: recall.Recaller("RNN", 32, 9), "the layers to compare are attention, GRU, LSTM: got 'RNN'"),
    ],
)
def test_settings_outside_their_domain(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(rg.ArgumentError, match=match):
        make()

"""The example of the tutorial's mistakes measures what it says."""

import runpy
from pathlib import Path

import pytest
import torch

from regard.testing import assert_causal

EXAMPLE = Path(__file__).parents[2] / "examples" / "tutorial_leak.py"
example = runpy.run_path(str(EXAMPLE))
x = example["SIX_TOKENS"]


def test_softmax_mask_softmax_moves_the_past_when_the_future_changes() -> None:
    moved = example["leak"](example["leaky_module"](), x)
    assert moved[0] == 0
    assert (moved[1:5] > 1e-3).all()


def test_the_mended_module_moves_no_output_but_the_last() -> None:
    moved = example["leak"](example["same_weights"](example["leaky_module"]()), x)
    assert not moved[:5].any()
    assert moved[5] > 1e-3


def test_assert_causal_catches_the_leak_and_passes_ours() -> None:
    leaky = example["leaky_module"]()
    with pytest.raises(AssertionError, match="not causal: token 1 saw token 5 of its future"):
        assert_causal(leaky, x[None])
    assert_causal(example["same_weights"](leaky), x[None])
    assert example["verdict"](leaky, x).startswith("not causal: token 1 saw token 5")
    assert example["verdict"](example["same_weights"](leaky), x) == "causal"


def test_the_leaky_weights_look_causal() -> None:
    weights = example["leaky_module"]().weights(x)
    assert torch.equal(weights, weights.tril())
    torch.testing.assert_close(weights.sum(-1), torch.ones(6))


def test_the_second_softmax_flattens() -> None:
    leaky = example["leaky_module"]()
    flat, mended = leaky.weights(x)[5], example["same_weights"](leaky).steps(x).weights[5]
    assert flat.max() - flat.min() < 0.2 * (mended.max() - mended.min())


def test_the_other_mistakes_raise_and_ours_does_not() -> None:
    seven = torch.cat([x, x[:1]])
    leaky, error_of = example["leaky_module"](), example["error_of"]
    assert error_of(leaky, seven).startswith("RuntimeError: The size of tensor a (6) must match")
    assert error_of(example["CalledShape"](), x) == "TypeError: 'torch.Size' object is not callable"
    assert error_of(example["Misspelt"](), x).startswith("NotImplementedError: Module [Misspelt] is missing")
    assert error_of(example["same_weights"](leaky), seven) == ""


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example["main"]()
    printed = capsys.readouterr().out
    assert "mended:   0.0000  0.0000  0.0000  0.0000  0.0000  " in printed
    assert "'torch.Size' object is not callable" in printed

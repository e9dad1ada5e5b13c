"""What the page of the documentation says of architectures is found again by trying some of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from regard.adapters.huggingface.survey.page import page, read
from regard.adapters.huggingface.survey.trial import Verdict, architectures, trial

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "huggingface.md"
SAMPLE = ["bart", "bert", "bloom", "deepseek_v3", "deepseek_v4", "dinov2", "gemma2", "gpt_oss", "hy_v4", "llama4_text"]
SAMPLE += ["longformer", "modernbert", "mpt", "patchtst", "qwen2_moe", "resnet", "t5", "vit", "wav2vec2", "whisper"]
SAMPLE += ["lfm3_vl_vision", "qwen2_vl_text", "siglip2_vision_model"]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return read(PAGE.read_text())


@pytest.mark.parametrize("architecture", SAMPLE)
def test_the_page_says_what_a_trial_finds(architecture: str, written: dict[str, str]) -> None:
    verdict = trial(architecture)
    assert verdict.kind == written[architecture], verdict


def test_the_page_has_every_architecture_of_the_installed_transformers(written: dict[str, str]) -> None:
    assert f"transformers\n{transformers.__version__};" in PAGE.read_text()
    assert sorted(written) == architectures()


def test_no_architecture_differs_from_eager() -> None:
    assert "differs from eager" not in PAGE.read_text()


def test_a_page_is_read_as_it_was_written() -> None:
    verdicts = [
        Verdict("b", "works", layers=2),
        Verdict("a", "works", layers=3),
        Verdict("c", "refused", "raises | <this>"),
        Verdict("d", "not tried", "no `size`"),
    ]
    assert read(page(verdicts, "5.0")) == {"a": "works", "b": "works", "c": "refused", "d": "not tried"}

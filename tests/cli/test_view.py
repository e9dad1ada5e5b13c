"""``regard view``."""

from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.cli.main import main
from regard.recording.text import record_text
from regard.viewer import Server


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    layer = rg.nn.MultiHeadAttention(16, 16, 32, 0.0, num_heads=2)
    with rg.record(layer) as record:
        layer(torch.randn(1, 10, 16))
    record.save(tmp_path / "record")
    return tmp_path / "record"


def test_a_saved_record_becomes_a_page(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["view", str(saved), "--compare", str(saved), "--html", str(page)]) == 0
    assert "page.html" in capsys.readouterr().out.replace("\n", "")
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>")
    assert '"sink_mass_1":[[' in html
    assert '"prefix_matching":[[' not in html  # the record knows no words
    assert main(["view", str(saved), "--no-scores", "--html", str(page)]) == 0
    assert '"sink_mass_1":[[' not in page.read_text("utf-8")


def test_a_saved_record_is_served(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "wait", lambda self: self.close())
    assert main(["view", str(saved), "--no-browser"]) == 0
    assert "http://127.0.0.1:" in capsys.readouterr().out
    assert saved.with_name("record.maps").is_dir()


def test_what_is_no_record_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a tokenizer of words, in a folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"the": 0, "cat": 1, "sat": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    folder = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    LlamaModel(config).save_pretrained(folder)
    return folder


def test_a_model_on_a_text_becomes_a_page_and_a_record(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat the cat sat", "utf-8")
    page, kept = tmp_path / "page.html", tmp_path / "kept"
    asked = ["view", "--model", str(model), "--text", str(text), "--max-tokens", "5"]
    assert main([*asked, "--save", str(kept), "--html", str(page)]) == 0
    record = rg.load_record(kept)
    assert record.tokens == [["the", "cat", "sat", "the", "cat"]]
    assert '"prefix_matching":[[' in page.read_text("utf-8")
    assert len(record.layers) == 2
    assert '"sat"' in page.read_text("utf-8")


def test_a_gguf_file_is_a_model(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder and its name go to transformers, whose own reading of GGUF is not tested here."""
    import transformers

    for kind in (transformers.AutoModel, transformers.AutoTokenizer):

        def load(where: str, *, gguf_file: str, whole: Any = kind.from_pretrained) -> Any:
            assert (where, gguf_file) == (str(tmp_path), "small.gguf")
            return whole(str(model))

        monkeypatch.setattr(kind, "from_pretrained", load)
    record = record_text(str(tmp_path / "small.gguf"), "the cat sat")
    assert record.tokens == [["the", "cat", "sat"]]


def test_what_a_model_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def load(where: str, **_: object) -> Any:
        raise ImportError("install gguf")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", load)
    with pytest.raises(rg.MissingError, match=r"small\.gguf needs more than transformers: install gguf"):
        record_text(str(tmp_path / "small.gguf"), "the cat sat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a RECORD, or --model and --text together"),
        (["--model", "x"], "a RECORD, or --model and --text together"),
        (["record", "--model", "x", "--text", "y"], "a RECORD, or --model and --text together"),
        (["--model", "x", "--text", "not-here.txt"], "--text is a file in UTF-8: cannot read"),
        (["--model", "no-such-folder/model", "--text", __file__], "a model is a folder that save_pretrained wrote"),
    ],
    ids=["nothing", "no text", "both", "no file", "no model"],
)
def test_what_cannot_be_looked_at(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())

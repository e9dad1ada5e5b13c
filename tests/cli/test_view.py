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


@pytest.fixture
def gguf_file(model: Path, tmp_path: Path) -> Path:
    """The weights of ``model`` in a GGUF file, with a tokenizer of the bytes of its words and of these words."""
    gguf = pytest.importorskip("gguf")
    from transformers import LlamaModel

    network = LlamaModel.from_pretrained(model)
    config, path = network.config, tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("small")
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "c", "ab"])
    writer.add_token_types([1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for name, weight in network.state_dict().items():
        new = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}.get(name)
        if new is None:
            _, layer, inner = name.removesuffix(".weight").split(".", 2)
            new = f"blk.{layer}.{names[inner]}.weight"
            count = heads.get(inner.split(".")[-1])
            if count is not None:  # the format has a rotated pair side by side, transformers half a head apart
                weight = weight.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2)
        writer.add_tensor(new, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_a_model(model: Path, gguf_file: Path, tmp_path: Path) -> None:
    from transformers import LlamaModel

    text, kept, page = (tmp_path / name for name in ("text.txt", "kept", "page.html"))
    text.write_text("cabbab", "utf-8")
    asked = ["view", "--model", str(gguf_file), "--text", str(text), "--save", str(kept), "--html", str(page)]
    assert main(asked) == 0
    record = rg.load_record(kept)
    assert record.meta["model"] == "small.gguf"
    assert record.tokens == [["c", "ab", "b", "ab"]]
    network = LlamaModel.from_pretrained(model)
    with torch.no_grad(), rg.record(network) as own:
        network(torch.tensor([[2, 3, 1, 3]]))
    for mine, theirs in zip(own.layers, record.layers, strict=True):
        torch.testing.assert_close(mine.weights.dense(), theirs.weights.dense())
    assert "small.gguf" in page.read_text("utf-8")


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

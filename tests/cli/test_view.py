"""``regard view``."""

from pathlib import Path

import pytest
import torch

import regard as rg
from regard.cli.main import main
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
    assert page.read_text("utf-8").startswith("<!doctype html>")


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

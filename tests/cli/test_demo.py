"""`regard demo`, with a training of two steps: everything in one folder, and the heads named are those that score."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regard import lm
from regard.cli.demo import command
from regard.cli.demo.heads import SENTENCES, look
from regard.cli.training import Screen
from regard.lm.model import Block

Run = Callable[..., Any]


def test_everything_goes_to_one_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_QUICK_STEPS", 2)
    monkeypatch.chdir(tmp_path)
    ended: list[Path] = []
    monkeypatch.setattr(Screen, "__exit__", lambda screen, *raised: ended.append(screen._folder))
    status, shown, err = run("demo", "--quick", "--no-tour", width=100)
    assert (status, err) == (0, "")
    assert [str(folder) for folder in ended] == ["regard-demo-quick"]  # no bar goes on below what follows
    folder = tmp_path / "regard-demo-quick"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert {"heads.html", "loss.png", "text.txt", "step-00000002"} == {path.name for path in folder.iterdir()}
    page = (folder / "heads.html").read_text(encoding="utf-8")
    assert "prefix_matching" in page
    assert "previous_token   looks at the character just before" in shown
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert f"everything is in {folder}" in "".join(shown.splitlines())
    text = (folder / "text.txt").read_text(encoding="utf-8").strip()
    assert text.splitlines()[0] in shown
    assert "held-out loss" in shown
    assert "not yet below 2.0 nats" in shown
    assert 'regard generate regard-demo-quick "My lord"' in shown
    again = run("demo", "--quick", "--no-tour", width=100)
    assert again.status == 0
    assert "holds a run already; going on with it" in again.out


def test_the_named_heads_score_highest(tmp_path: Path) -> None:
    text = lm.Text("the cat sat on the mat and the dog lay on the log; " * 20, "rhyme")
    tokenizer = lm.Characters.of(text.text)
    config = lm.ModelConfig(tokenizer.size, context_length=13, width=24, layers=2, heads=3)
    run = lm.train(text, tokenizer, config, lm.Training(steps=1, batch=2), lm.Where(tmp_path / "run"))
    _, model = lm.load_run(tmp_path / "run")
    found = look(run, model, "the cat sat on the mat", tmp_path / "heads.html")
    ids = torch.tensor([tokenizer.encode("the cat sat o")])
    assert [one.score for one in found] == list(SENTENCES)
    before: list[torch.Tensor] = []
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    for block in blocks:
        block.attention_norm.register_forward_hook(lambda module, args, out: before.append(out))
    model(ids)
    weights = torch.stack(
        [block.attention.steps(x).weights[0] for block, x in zip(blocks, before, strict=True)]
    ).detach()
    q, k = torch.arange(13)[:, None], torch.arange(13)
    after = torch.zeros(13, 13, dtype=torch.bool)
    after[:, 1:] = ids[0][:, None] == ids[0][:-1]
    pairs = {
        "previous_token": (q - k == 1, 12),
        "prefix_matching": (after & (k <= q), 13),
        "duplicate_token": ((ids[0][:, None] == ids[0]) & (k < q), 13),
    }
    for one in found[:3]:
        seen, rows = pairs[one.score]
        grid = (weights * seen).sum((-2, -1)) / rows
        assert one.value == pytest.approx(float(grid.max()), rel=1e-4)
        assert grid[one.layer, one.head] == grid.max()

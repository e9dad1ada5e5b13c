"""`head_view` and `model_view`: dense and lazy attentions on the same page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.viewer import View, head_view, model_view
from regard.viewer.migrate import _lazy


def attentions(rows: int = 7, cols: int = 7, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    hidden = ~torch.ones(rows, cols, dtype=torch.bool).tril(cols - rows)
    return [torch.randn(2, 3, rows, cols).masked_fill(hidden, -torch.inf).softmax(-1).to(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_shown_is_what_was_given(dtype: torch.dtype) -> None:
    given = attentions(5, 7, dtype)[0]
    shown = _lazy(0, given)
    assert shown is not None
    own = given[:1].float()
    torch.testing.assert_close(shown.dense(), own / own.sum(-1, keepdim=True))


def test_a_row_of_zeros_stays_one() -> None:
    given = attentions()[0]
    given[:, :, 0] = 0
    shown = _lazy(0, given)
    assert shown is not None
    torch.testing.assert_close(shown.dense(), given[:1])


def test_the_page_shows_itself_and_saves(tmp_path: Path) -> None:
    view = head_view(attentions(), [f"Ġt{n}" for n in range(7)])
    assert isinstance(view, View)
    assert "<iframe" in view._repr_html_()
    assert view.save(tmp_path / "page.html").read_text(encoding="utf-8") == view.html
    assert "Ġ" not in view.html
    assert '" t3"' in view.html


def test_lazy_weights_and_missing_layers_go_in_too() -> None:
    q = torch.randn(1, 2, 6, 4)
    page = model_view([None, rg.inspect(q, q, q, mask=rg.Causal()).weights], list("abcdef"), html_action="return")
    assert isinstance(page, str)
    assert "<canvas" in page or "regard-data" in page


def test_layers_are_chosen() -> None:
    both, one = head_view(attentions(), list("abcdefg")), head_view(attentions(), list("abcdefg"), include_layers=[1])
    assert isinstance(both, View)
    assert isinstance(one, View)
    assert len(one.html) < len(both.html)


@pytest.mark.parametrize(
    ("attention", "options", "error", "message"),
    [
        (torch.rand(1, 2, 3, 3), {}, rg.KindError, "a list of weights, one a layer"),
        ([torch.ones(3, 3)], {}, rg.ShapeError, r"attention\[0\] is \(B, H, q_len, k_len\)"),
        ([torch.ones(1, 1, 3, 3, dtype=torch.long)], {}, rg.KindError, "a float tensor or lazy weights"),
        ([torch.full((1, 1, 3, 3), 0.5)], {}, rg.ArgumentError, r"got sums from 1.5 to 1.5.*model.eval\(\)"),
        ([torch.full((1, 1, 3, 3), 1 / 3)], {"include_layers": [4]}, rg.ArgumentError, "out of 0 … 0"),
        ([torch.full((1, 1, 3, 3), 1 / 3)], {"html_action": "save"}, rg.ArgumentError, "'view' or 'return'"),
    ],
    ids=["tensor", "dims", "dtype", "dropout", "layers", "action"],
)
def test_refusals(attention: object, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        head_view(attention, ["a", "b", "c"], **options)  # type: ignore[arg-type]

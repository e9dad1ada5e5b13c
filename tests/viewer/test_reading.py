"""The tokens beside the map: rows, text, lines, and strange ones."""

from __future__ import annotations

from typing import Any

import torch
from tests.viewer.screen import LENGTH, MAP, STATE, TOKENS, at, patterned

import regard as rg
from regard.viewer import to_html


@at("#at=0.1.0&focus=q118-118")
def test_an_induction_query_reads_what_followed_the_same_word(page: Any) -> None:
    page.page.wait_for_selector("table.unseen tbody tr")
    read = [int(row.inner_text()) for row in page.page.locator("table.unseen tbody tr td:first-child").all()]
    assert read
    assert all(TOKENS[n - 1] == TOKENS[118] for n in read)
    caption = page.page.locator(".caption").inner_text()
    assert "What query 118" in caption
    assert "dogs" in caption


@at("")
def test_a_range_of_rows_by_number_and_by_dragging_the_edge(page: Any) -> None:
    page.page.get_by_label("First query in view").fill("80")
    page.page.get_by_label("First query in view").press("Enter")
    page.until(f"{MAP}.view().y0 === 80 && {MAP}.view().y1 === 120")
    assert page.page.evaluate(f"{STATE}.focus") == {"axis": "query", "from": 80, "to": 119}
    page.until("document.querySelector('.caption').textContent.startsWith('What queries 80–119 read, on average')")
    page.page.keyboard.press("Tab")
    page.page.locator("figure canvas").focus()
    page.page.keyboard.press("0")
    page.until(f"{MAP}.view().y1 - {MAP}.view().y0 === 120")
    box = page.page.locator("figure canvas").bounding_box()
    plot = page.viewer("(v) => v.maps[0].plot()")
    place = [box["y"] + plot["top"] + (i + 0.5) / LENGTH * plot["height"] for i in (30, 49)]
    page.page.mouse.move(box["x"] + 30, place[0])
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 30, place[1], steps=4)
    page.page.mouse.up()
    page.until(f"{STATE}.focus?.from === 30 && {STATE}.focus?.to === 49")


@at("#at=0.1.1&view=60,90,60,90&panel=lines&focus=q80-80")
def test_lines_lead_from_the_chosen_query_to_what_it_reads(page: Any) -> None:
    """The previous-token head: one line, from the chosen row to the one above it; more with a greater share."""

    def inked() -> list[int]:
        found: list[int] = page.page.evaluate(
            """() => { const c = document.querySelector('canvas.lines'), g = c.getContext('2d');
              const [x, d] = [c.clientWidth * 0.655 - 8, devicePixelRatio];
              const a = g.getImageData(Math.round(x * d), 0, 1, c.height).data, rows = new Set();
              for (let y = 0; y < c.height; y++) if (a[4 * y + 3] > 40) rows.add(Math.round((y / d - 16) / 18));
              return [...rows]; }"""
        )
        return found

    page.until("document.querySelector('canvas.lines').height > 200")
    keys = page.viewer("(v) => v.maps[0].view()")
    assert keys["y0"] == 60
    page.page.wait_for_timeout(100)
    first_key = 60
    dense = patterned()[1].weights.dense()[0, 1, 80]
    assert int(dense.argmax()) == 79
    assert inked() == [79 - first_key]
    note = page.page.locator(".lines-note").inner_text()
    assert note == "Queries 60–89 and keys 60–107, 48 at a time. Move the map to see others."
    slider = page.page.get_by_label("Top-p")
    slider.fill("1")
    page.until(f"{STATE}.topP === 1")
    assert page.page.locator(".tabs output").inner_text() == "1.00"
    box = page.page.locator("canvas.lines").bounding_box()
    page.page.mouse.click(box["x"] + 60, box["y"] + 16 + 18 * 22)
    page.until(f"{STATE}.focus.from === 82")


@at("#at=0.0.1&panel=text&focus=q100-100&topP=0.5")
def test_top_p_colours_the_fewest_tokens_that_hold_the_share(page: Any) -> None:
    row = patterned()[0].weights.dense()[0, 1, 100]
    order = row.sort(descending=True)
    few = int((order.values.cumsum(0) < 0.5).sum()) + 1
    page.page.wait_for_selector(".text span.self")
    coloured = page.page.locator(".text span[style]").all()
    assert sorted(int(span.get_attribute("data-n")) for span in coloured) == sorted(order.indices[:few].tolist())
    page.page.locator("button", has_text="who reads it").click()
    page.until(f"{STATE}.focus.axis === 'key' && {STATE}.focus.at === 100")
    page.until("document.querySelector('.caption').textContent.startsWith('Who reads key 100')")
    held = {int(span.get_attribute("data-n")) for span in page.page.locator(".text span[style]").all()}
    assert held
    assert min(held) >= 100


def test_strange_tokens_are_drawn_right_on_axes_lines_and_cards(visit: Any) -> None:
    tokens = ["</script>", "👩‍🚀", "שלום", "a\x00b", "x" * 10_000, "<b>", "&lt;", "\u202eevil"]
    seen = rg.inspect(*torch.randn(3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1)), mask=rg.Causal())
    with visit(to_html(seen, tokens=tokens), "#focus=q7-7") as page:
        written = page.page.evaluate(
            """async () => { const words = [], kind = CanvasRenderingContext2D.prototype, own = kind.fillText;
              kind.fillText = function (text, ...rest) { words.push(text); own.call(this, text, ...rest); };
              const v = document.querySelector('main.regard').viewer;
              v.set({panel: 'lines'}); v.render();
              await new Promise((done) => setTimeout(done, 300));
              kind.fillText = own; return words; }"""
        )
        drawn = set(written)
        assert {"</script>", "👩‍🚀", "שלום", "a␀b", "<b>", "&lt;"} <= drawn
        assert not any("\u202e" in word or len(word) > 40 for word in drawn)
        assert page.page.locator("main b:not(.chip b), main script").count() == 0

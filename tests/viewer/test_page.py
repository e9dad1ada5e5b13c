"""What the page does: tokens, keys, pointers, links, frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import regard as rg
from regard.viewer import frame_html, to_html

HOSTILE = [
    "</script><img src=x onerror=\"document.title='broken'\">",
    "<b>bold</b>",
    "&amp;",
    "👩‍🚀",
    "שלום",
    "العربية",
    "a\x00b",
    "",
    "x" * 10_000,
    "\u2028\u2029",
    "\u202eevil",
    "<!--",
    "\ud83d",
    "'\"`${}",
    "\n",
    " the",
]
VIEW = "document.querySelector('main.regard').viewer.maps[0].view()"


def seen(length: int, heads: int = 2, seed: int = 0) -> rg.Inspection:
    q, k = torch.randn((2, 1, heads, length, 8), generator=torch.Generator().manual_seed(seed)).unbind()
    return rg.inspect(q, k, k, mask=rg.Causal())


def words(length: int) -> list[str]:
    return [f" w{n}" for n in range(length)]


def test_hostile_tokens_are_inert_and_drawn(visit: Any) -> None:
    html = to_html(seen(len(HOSTILE)), tokens=HOSTILE, title="</title><script>document.title='broken'</script>")
    with visit(html, "#focus=q15-15") as page:
        page.page.wait_for_selector(".text span.self")
        shown = [span.text_content() for span in page.page.locator(".text span[data-n]").all()]
        assert shown[0] == HOSTILE[0]
        assert shown[1] == HOSTILE[1]
        assert shown[3] == HOSTILE[3]
        assert shown[6] == "a␀b"
        assert shown[7] == "∅"
        assert len(shown[8]) <= 400
        assert "\u202e" not in shown[10]
        assert page.page.locator("img, b, script[src], link[rel=stylesheet]").count() == 0
        assert page.page.title() == "</title><script>document.title='broken'</script> · regard"
        for panel in ("lines", "text"):
            page.page.keyboard.press("t")
            page.page.wait_for_selector(f".{panel}:visible")


def test_the_hovered_value_is_the_weight(visit: Any) -> None:
    inspection = seen(12)
    dense = inspection.weights.dense()[0, 0]
    with visit(to_html(inspection, tokens=words(12))) as page:
        box = page.page.locator("figure canvas").bounding_box()
        plot = page.viewer("(v) => v.maps[0].plot()")
        for i, j in ((11, 3), (7, 7), (5, 0), (2, 9)):
            x = box["x"] + plot["left"] + (j + 0.5) / 12 * plot["width"]
            y = box["y"] + plot["top"] + (i + 0.5) / 12 * plot["height"]
            page.page.mouse.move(x, y)
            page.until(f"document.querySelector('.card').textContent.includes('query {i}')")
            card = page.page.locator(".card").inner_text()
            assert f" w{i}" in card
            assert f" w{j}" in card
            if j > i:
                assert "hidden" in card
            else:
                assert float(page.page.locator(".card .value").inner_text()) == pytest.approx(
                    dense[i, j].item(), rel=2e-3
                )


def test_the_colours_are_those_of_the_weights(visit: Any) -> None:
    """A cell's pixel has the colour whose place on the colour bar is the weight's."""
    inspection = seen(8)
    dense = inspection.weights.dense()[0, 0]
    with visit(to_html(inspection), "#palette=grey&scale=linear&contrast=0") as page:
        plot = page.viewer("(v) => v.maps[0].plot()")
        for i, j in ((7, 1), (3, 3), (6, 4)):
            x, y = (plot["left"] + (j + 0.2) / 8 * plot["width"], plot["top"] + (i + 0.2) / 8 * plot["height"])
            red = page.page.evaluate(
                "([x, y]) => document.querySelector('figure canvas').getContext('2d').getImageData(x, y, 1, 1).data[0]",
                [round(x), round(y)],
            )
            low, high = (page.viewer("(v, n) => n", n) for n in (12, 250))
            # Lightness runs evenly in OKLab, whose lightness of a grey is the cube root of its linear value.
            want = _grey(dense[i, j].item(), low, high)
            assert abs(red - want) <= 2


def _grey(share: float, low: int, high: int) -> float:
    def lightness(c: float) -> float:
        c /= 255
        return float((c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) ** (1 / 3))

    mixed = (lightness(low) + share * (lightness(high) - lightness(low))) ** 3
    return 255 * (12.92 * mixed if mixed <= 0.0031308 else 1.055 * mixed ** (1 / 2.4) - 0.055)


def test_keys_move_zoom_and_choose(visit: Any) -> None:
    with visit(to_html([seen(300), seen(300, seed=1)], tokens=words(300))) as page:
        keys = page.page.keyboard
        page.page.locator("figure canvas").focus()

        def view() -> dict[str, float]:
            found: dict[str, float] = page.viewer("(v) => v.maps[0].view()")
            return found

        assert view() == {"x0": 0, "x1": 300, "y0": 0, "y1": 300}
        keys.press("+")
        page.until("location.hash.includes('view')")
        near = view()
        assert near["x1"] - near["x0"] == pytest.approx(180)
        keys.press("ArrowRight")
        page.until(f"Math.abs({VIEW}.x0 - {near['x0'] + 30}) < 1e-6")
        keys.press("Shift+ArrowDown")
        page.until("document.querySelector('.regard > .unseen').textContent.startsWith('query')")
        keys.press("Enter")
        page.page.wait_for_selector(".text span.self")
        assert page.page.locator("table.unseen tbody tr").count() > 0
        keys.press("]")
        keys.press("}")
        page.until("location.hash.includes('at=0.1.1')")
        keys.press("d")
        page.until("document.querySelectorAll('figure').length === 2")
        keys.press("d")
        page.until("document.querySelectorAll('figure').length === 3")
        keys.press("0")
        page.until(f"{VIEW}.x1 === 300")
        keys.press("?")
        assert page.page.locator("dialog[open] tr").count() >= 10


def test_a_link_brings_back_the_view(visit: Any) -> None:
    html = to_html([seen(200), seen(200, seed=1)], tokens=words(200), scores={"one": [[0, 1], [2, 3]]})
    link = "#at=0.1.0&with=0.0.1&difference=1&view=10,60,20,70&scale=uniform&hide=1&find=w33&focus=k33"
    with visit(html, link) as page:
        page.until("document.querySelectorAll('figure').length === 3")
        assert page.page.evaluate("location.hash") == link.replace(",", "%2C")
        assert page.page.locator(".hits").inner_text() == "– of 1"
    with visit(html, "#at=9.9.9&view=x&scale=loud&focus=q999-5") as page:
        assert page.viewer("(v) => v.state.left") == {"record": 0, "layer": 0, "head": 0}


def test_searching_goes_to_the_token(visit: Any) -> None:
    with visit(to_html(seen(400), tokens=words(400))) as page:
        page.page.keyboard.press("/")
        page.page.keyboard.type("w321")
        page.page.keyboard.press("Enter")
        page.until("location.hash.includes('focus=q321-321')")
        view = page.viewer("(v) => v.maps[0].view()")
        assert view["x0"] <= 321 < view["x1"]
        assert view["x1"] - view["x0"] < 60


def test_two_frames_in_one_page_and_another_language(browser: Any, tmp_path: Any) -> None:
    frames = "".join(frame_html(to_html(seen(20, seed=n), title=f"number {n}")) for n in range(2))
    path = tmp_path / "two.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'>{frames}", encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    for n, frame in enumerate(page.frames[1:]):
        # A frame that is not in sight is not drawn.
        page.locator("iframe").nth(n).scroll_into_view_if_needed()
        frame.wait_for_selector("main[data-ready]")
        assert frame.locator("h1").inner_text().strip("\u2068\u2069") == f"number {n}"
        assert frame.locator("h2").first.inner_text() == "Heads"
        frame.locator("button", has_text="中文").click()
        assert frame.locator("h2").first.inner_text() == "注意力頭"
    assert errors == []
    context.close()


def test_touch_pans(browser: Any, visit: Any) -> None:
    with visit(
        to_html(seen(300)), "#view=100,200,100,200", has_touch=True, viewport={"width": 420, "height": 800}
    ) as page:
        box = page.page.locator("figure canvas").bounding_box()
        x, y = box["x"] + 200, box["y"] + 150
        client = page.page.context.new_cdp_session(page.page)
        client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for step in range(1, 6):
            points = [{"x": x - 10 * step, "y": y}]
            client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": points})
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.until(f"{VIEW}.x0 > 105")

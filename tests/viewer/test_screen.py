"""What is on the screen: colours, minimap, comparison, known patterns, themes, words, names for a reader."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.viewer.conftest import visiting
from tests.viewer.screen import LENGTH, MAP, STATE, WORDS, at, noise, patterned, pixel, view

import regard as rg


@at("")
def test_the_first_screen_shows_the_clearest_pattern_and_chips_lead_to_the_others(page: Any) -> None:
    assert page.page.evaluate(f"{STATE}.left") == {"record": 0, "layer": 1, "head": 0}
    page.page.wait_for_selector(".text span.self")
    chips = [chip.get_attribute("aria-label") for chip in page.page.locator(".chip").all()]
    assert chips[0] == "Attention sink: Layer 0 · Head 0, 0.9"
    assert chips[3] == "Previous token: Layer 1 · Head 1, 0.8"
    page.page.locator(".chip").nth(3).click()
    page.page.wait_for_selector(".chip[aria-pressed=true] >> nth=0")
    page.until(f"{STATE}.focus !== null")
    own = page.page.evaluate(f"{STATE}.focus.from")
    assert page.page.evaluate(f"{STATE}.colourBy") == "previous_token"
    page.until(f"document.querySelector('.text .self')?.dataset.n === '{own}'")
    heaviest = page.page.locator("table.unseen tbody tr td").first.inner_text()
    assert int(heaviest) == own - 1
    assert "token just before" in page.page.locator(".story").inner_text()


@at("#at=0.0.1&palette=grey&contrast=0.6")
def test_each_scale_gives_its_own_colour_to_a_weight(page: Any) -> None:
    """Grey grows with the weight on each scale; ends are where the colour bar says."""
    dense = patterned()[0].weights.dense()[0, 1]
    cells = [(119, 5), (119, 60), (60, 7), (100, 99)]
    for name, key in (("log", None), ("linear", "s"), ("uniform", "s")):
        if key:
            page.page.keyboard.press(key)
        page.until(f"{STATE}.scale === '{name}'")
        page.page.wait_for_timeout(60)
        factor = {i: i + 1 if name == "uniform" else 1 for i, _ in cells}
        order = sorted(cells, key=lambda cell: dense[cell].item() * factor[cell[0]])
        greys = [pixel(page, *cell)[0] for cell in order]
        assert greys == sorted(greys)
        assert greys[-1] - greys[0] > 3
        label = page.page.locator(".colour-bar").get_attribute("aria-label")
        low, high = (float(x) for x in re.findall(r"[\d.]+", label.replace(" × 10⁻", "e-"))[:2])
        assert low < high
        assert (name == "linear") == (low == 0)


@at("#at=0.0.0&scale=linear&palette=grey&contrast=0")
def test_hiding_the_sink_blanks_its_column_and_lifts_the_rest(page: Any) -> None:
    before = pixel(page, 100, 50)[0]
    assert pixel(page, 100, 0)[0] > 240
    page.page.keyboard.press("h")
    page.until(f"{STATE}.hide === 1")
    page.until("document.querySelector('main').dataset.ready.endsWith('/1')")
    page.page.wait_for_timeout(250)
    background = pixel(page, 5, 100)
    assert pixel(page, 100, 0) == background
    # Without the sink this head spreads evenly over 100 keys: 0.01 of full white, up from almost nothing.
    assert pixel(page, 100, 50)[0] > before
    page.page.locator("[role=radiogroup][aria-label='Hide sink'] button", has_text="off").click()
    page.until(f"{STATE}.hide === 0")


@at("#view=0,40,0,40")
def test_the_minimap_moves_the_view(page: Any) -> None:
    box = page.page.locator(".minimap").bounding_box()
    page.page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"])
    page.until(f"Math.abs({MAP}.view().x0 - 70) < 2 && Math.abs({MAP}.view().y0 - 70) < 2")
    page.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"])
    page.page.mouse.up()
    page.until(f"Math.abs({MAP}.view().x0 - 28) < 2")


@at("#at=0.0.0&view=60,90,20,50")
def test_the_minimap_says_what_is_in_view_and_arrow_keys_move_it(page: Any) -> None:
    minimap = page.page.locator(".minimap")
    assert "queries 20–49 and keys 60–89 are in view" in minimap.get_attribute("aria-label")
    minimap.focus()
    page.page.keyboard.press("ArrowDown")
    page.until(f"{MAP}.view().y0 > 20")
    page.until("!document.querySelector('.minimap').ariaLabel.includes('queries 20–49')")


@at("#at=0.0.1&with=1.0.1&difference=1&scale=linear&contrast=0")
def test_two_records_move_together_and_subtract(page: Any) -> None:
    mine = patterned()[0].weights.dense()[0, 1]
    other = rg.inspect(*noise(0), mask=rg.Causal()).weights.dense()[0, 1]
    assert page.page.locator("figcaption").all_inner_texts() == [
        "one — Layer 0 · Head 1",
        "attention — Layer 0 · Head 1",
        "left − right",
    ]
    page.page.locator("figure canvas").nth(1).focus()
    page.page.keyboard.press("+")
    page.until(f"{MAP}.view().x1 - {MAP}.view().x0 < 75")
    page.until("document.querySelector('main.regard').viewer.motion.goal === null")
    assert view(page, 0) == view(page, 1) == view(page, 2)
    page.page.keyboard.press("0")
    page.until(f"{MAP}.view().x1 === 120")
    page.page.wait_for_timeout(100)
    # Red where the left weight is greater, blue where the right one is, on the light difference scale.
    apart = (mine - other).tril()
    for flat, warm in ((int(apart.argmax()), True), (int(apart.argmin()), False)):
        red, _, blue, _ = pixel(page, flat // LENGTH, flat % LENGTH, 2)
        assert (red > blue) == warm
    i, j = int(apart.argmax()) // LENGTH, int(apart.argmax()) % LENGTH
    box = page.page.locator("figure canvas").first.bounding_box()
    plot = page.viewer("(v) => v.maps[0].plot()")
    page.page.mouse.move(
        box["x"] + plot["left"] + (j + 0.5) / LENGTH * plot["width"],
        box["y"] + plot["top"] + (i + 0.5) / LENGTH * plot["height"],
    )
    page.until("document.querySelectorAll('.card .value').length === 2")
    values = page.viewer("(v) => [v.probe.values.max, v.probe.other.max]")
    assert values == pytest.approx([mine[i, j].item(), other[i, j].item()], rel=5e-3)


@at("", color_scheme="dark")
def test_dark_mode_follows_the_system_and_can_be_turned(page: Any) -> None:
    def ground() -> int:
        colour = page.page.evaluate("getComputedStyle(document.querySelector('main.regard')).backgroundColor")
        return sum(int(x) for x in re.findall(r"\d+", colour)[:3])

    assert ground() < 150
    dark = pixel(page, 10, 100)
    assert max(dark[:3]) < 80
    page.page.get_by_role("button", name="Light or dark").click()
    page.until("document.querySelector('main.regard').dataset.theme === 'light'")
    page.page.wait_for_timeout(60)
    assert ground() > 700
    assert min(pixel(page, 10, 100)[:3]) > 200


@at("#at=0.1.0&focus=q50-50", locale="zh-TW")
def test_the_whole_page_speaks_chinese(page: Any) -> None:
    """No word of English is left, but for the title, tokens, file facts and names of keys."""
    assert page.page.evaluate("document.documentElement.lang") == "zh-Hant"
    page.page.wait_for_selector(".text span.self")
    page.page.get_by_label("按鍵與手勢").click()
    allowed = {
        "one",
        "mine",
        "q",
        "k",
        "Top-p",
        "English",
        "Enter",
        "Shift",
        "S",
        "P",
        "H",
        "D",
        "T",
        *WORDS,
        "attention",
    }
    spoken = page.page.evaluate(
        """() => { const out = [document.querySelector('main').innerText];
          for (const e of document.querySelectorAll('main *')) {
            for (const name of ['aria-label', 'title', 'placeholder']) out.push(e.getAttribute(name) ?? '');
          }
          for (const e of document.querySelectorAll('option')) out.push(e.textContent);
          return out.join('\\n'); }"""
    )
    words = set(re.findall(r"[A-Za-z][A-Za-z-]*", spoken))
    assert words <= allowed, words - allowed
    assert "查詢" in spoken


@at("")
def test_every_control_has_a_name_and_is_reached_by_the_keyboard(page: Any) -> None:
    unnamed = page.page.evaluate(
        """() => [...document.querySelectorAll('main :is(button, select, input, canvas, [tabindex="0"])')]
          .filter((e) => ![e.getAttribute('aria-label'), (e.closest('label') ?? e).textContent].some((x) => x?.trim()))
          .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    reached = set()
    page.page.locator("h1").click()
    for _ in range(60):
        page.page.keyboard.press("Tab")
        reached.add(
            page.page.evaluate(
                "(() => { const e = document.activeElement; return e.getAttribute('aria-label') || e.textContent; })()"
            )
        )
    wanted = page.page.evaluate(
        """() => [...document.querySelectorAll('main button, main select, main input, main canvas[tabindex]')]
          .filter((e) => e.tabIndex >= 0 && e.offsetParent).map((e) => e.getAttribute('aria-label') || e.textContent)"""
    )
    assert set(wanted) <= reached, set(wanted) - reached
    assert len(wanted) > 25


@at("")
def test_keys_alone_choose_heads_scales_and_cells(page: Any) -> None:
    keys = page.page.keyboard
    page.page.locator("canvas.grid").focus()
    keys.press("ArrowUp")
    assert page.page.locator(".note").inner_text() == "Layer 0 · Head 0 — Induction 0.1"
    keys.press("Enter")
    page.until(f"{STATE}.left.layer === 0")
    page.page.locator("[role=radiogroup][aria-label=Scale] [aria-checked=true]").focus()
    keys.press("ArrowRight")
    page.until(f"{STATE}.scale === 'linear'")
    assert page.page.evaluate("document.activeElement.textContent") == "linear"
    page.page.locator("figure canvas").focus()
    keys.press("Shift+ArrowUp")
    keys.press("Shift+ArrowLeft")
    said = page.page.locator(".regard > .unseen").text_content()
    assert re.match(r"query \d+ “\W*\w+\W*”, key \d+ “\W*\w+\W*”: ", said), said
    for key, state in (("p", "pooling === 'mass'"), ("t", "panel === 'lines'"), ("Escape", "focus === null")):
        keys.press(key)
        page.until(f"{STATE}.{state}")


@at(
    "#at=1.0.1&view=10,60,20,70&scale=linear&pooling=mass&hide=4&contrast=0.3&palette=viridis&colourBy=mine&panel=lines&topP=0.6&find=cat&focus=k33"
)
def test_a_link_restores_everything(page: Any) -> None:
    state = page.page.evaluate(STATE)
    assert state["left"] == {"record": 1, "layer": 0, "head": 1}
    assert state["view"] == {"x0": 10, "x1": 60, "y0": 20, "y1": 70}
    assert state["focus"] == {"axis": "key", "at": 33}
    wanted = {"scale": "linear", "pooling": "mass", "hide": 4, "contrast": 0.3, "palette": "viridis"}
    wanted |= {"colourBy": "mine", "panel": "lines", "topP": 0.6, "find": "cat"}
    assert {name: state[name] for name in wanted} == wanted
    assert page.page.locator("[type=search]").input_value() == "cat"
    assert page.page.locator("[aria-label=Palette]").input_value() == "viridis"
    assert page.page.get_by_label("Contrast").input_value() == "0.3"
    assert page.page.locator("canvas.lines").is_visible()


@at("", has_touch=True, is_mobile=True, viewport={"width": 390, "height": 844})
def test_two_fingers_zoom_on_a_phone_and_the_page_stays_as_wide(page: Any) -> None:
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    page.page.locator("figure canvas").scroll_into_view_if_needed()
    box = page.page.locator("figure canvas").bounding_box()
    x, y = box["x"] + 200, box["y"] + 180
    client = page.page.context.new_cdp_session(page.page)

    def fingers(apart: float) -> list[dict[str, float]]:
        return [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]

    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": fingers(20)})
    for apart in (25, 30, 35, 40):
        client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": fingers(apart)})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.until(f"{MAP}.view().x1 - {MAP}.view().x0 < 70")
    now = view(page)
    assert now["x1"] - now["x0"] == pytest.approx(LENGTH / 2, rel=0.1)


@at("#at=0.1.0", device_scale_factor=2)
def test_the_picture_holds_the_map_its_title_and_its_legend(page: Any, tmp_path: Any) -> None:
    import numpy as np
    from PIL import Image

    canvas = page.page.locator("figure canvas")
    assert page.page.evaluate(
        "[...document.querySelectorAll('figure canvas')].map((c) => c.width / c.clientWidth)"
    ) == [2]
    with page.page.expect_download() as started:
        page.page.get_by_role("button", name="Save picture").click()
    assert started.value.suggested_filename == "attention-1-0.png"
    started.value.save_as(tmp_path / "picture.png")
    picture = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
    assert picture.shape[1] > 2 * canvas.bounding_box()["width"]
    # A margin, a dark title, a map of more than a few colours.
    assert picture[:8, :8].min() > 240
    assert picture[48:80, 48:300].sum(-1).min() < 200
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_a_hint_is_shown_once(browser: Any, path: Any) -> None:
    with visiting(browser, path.as_uri()) as page:
        assert page.page.locator(".hint").is_visible()
        page.page.locator(".hint button").click()
        assert page.page.locator(".hint").is_hidden()
        page.page.reload()
        page.page.wait_for_selector("main[data-ready]")
        assert page.page.locator(".hint").is_hidden()

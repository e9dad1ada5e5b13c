"""The widget of a notebook: its messages, its state, and the page in its frame, without a notebook."""

from __future__ import annotations

import base64
import gc
import queue
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.viewer.conftest import visiting

import regard as rg
from regard.viewer.maps import HeadMaps
from regard.viewer.page import script_json, static
from regard.viewer.server import MOST_WAITING, Answers
from regard.viewer.subject import subject_of
from regard.viewer.widget import Letters, _kind

LENGTH = 300
Sent = tuple[dict[str, object], bytes]


@pytest.fixture(scope="module")
def inspections() -> list[rg.Inspection]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(2):
        q, k = torch.randn((2, 1, 3, LENGTH, 8), generator=generator).unbind()
        made.append(rg.inspect(q, k, k, mask=rg.Causal()))
    return made


@pytest.fixture
def sent() -> queue.Queue[Sent]:
    return queue.Queue()


@pytest.fixture
def letters(inspections: list[rg.Inspection], sent: queue.Queue[Sent], tmp_path: Path) -> Letters:
    return Letters(Answers([subject_of(inspections)], tmp_path), lambda content, body: sent.put((content, body)))


PART = "part?record=0&layer=1&head=2&hide=0&r0={0}&r1={1}&c0=0&c1=300"


def ask(number: int, path: str) -> dict[str, object]:
    return {"kind": "ask", "view": "v", "id": number, "path": path}


def test_an_answer_has_the_numbers(letters: Letters, sent: queue.Queue[Sent], inspections: list[rg.Inspection]) -> None:
    letters.take(ask(7, PART.format(5, 9)))
    content, body = sent.get(timeout=20)
    assert content == {"view": "v", "id": 7, "status": 200, "shape": "4,300"}
    part = torch.from_numpy(np.frombuffer(body, "<f4").reshape(4, LENGTH).copy())
    torch.testing.assert_close(part.nan_to_num(), inspections[1].weights[0, 2, 5:9], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("../../etc/passwd", 404, "nothing of this name"),
        ("closed", 404, "nothing of this name"),
        ("tile?record=0", 400, "tile takes the numbers"),
        (PART.format(5, 999), 400, "lies within 300 rows"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    letters: Letters, sent: queue.Queue[Sent], path: str, status: int, message: str
) -> None:
    letters.take(ask(1, path))
    content, body = sent.get(timeout=20)
    assert (content["status"], message in body.decode()) == (status, True)


@pytest.mark.parametrize("message", [None, 3, {}, {"kind": "ask"}, {"kind": "ask", "view": "v", "id": "1", "path": ""}])
def test_what_is_no_message_is_ignored(letters: Letters, sent: queue.Queue[Sent], message: object) -> None:
    letters.take(message)
    letters.take(ask(1, "nothing"))
    assert sent.get(timeout=20)[0]["id"] == 1
    assert sent.empty()


def test_what_is_stopped_is_not_computed_and_the_queue_is_bounded(
    letters: Letters, sent: queue.Queue[Sent], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, computed = threading.Event(), threading.Event(), []

    def slow(maps: HeadMaps, rows: slice, cols: slice, hide: int = 0) -> torch.Tensor:
        computed.append(rows.start)
        begun.set()
        assert go_on.wait(20)
        return torch.zeros(1, 1)

    monkeypatch.setattr(HeadMaps, "weights", slow)
    for number in range(MOST_WAITING):
        letters.take(ask(number, PART.format(number, number + 1)))
    assert begun.wait(20)
    letters.take(ask(1000, PART.format(1, 2)))
    content, body = sent.get(timeout=20)
    assert (content["id"], content["status"]) == (1000, 503)
    assert f"{MOST_WAITING} requests are waiting" in body.decode()
    for number in range(1, MOST_WAITING - 1):
        letters.take({"kind": "stop", "view": "v", "id": number})
    go_on.set()
    assert [sent.get(timeout=20)[0]["id"] for _ in range(2)] == [0, MOST_WAITING - 1]
    assert computed == [0, MOST_WAITING - 1]


def test_the_widget_knows_where_it_is(inspections: list[rg.Inspection]) -> None:
    pytest.importorskip("anywidget")
    widget = rg.viewer.widget(inspections, tokens=["t"] * LENGTH, height=300)
    assert (widget.layer, widget.head, widget.view, widget.height) == (0, 0, None, 300)
    widget.show(1, 2, slice(10, 20), slice(None, 40))
    assert widget.state == "at=0.1.2&view=0,40,10,20"
    assert (widget.layer, widget.head, widget.view) == (1, 2, (slice(10, 20), slice(0, 40)))
    widget.state = "at=0.1.0&view=0.5,40.25,-3,20.5&scale=linear"
    assert (widget.layer, widget.head, widget.view) == (1, 0, (slice(0, 21), slice(0, 41)))
    with pytest.raises(rg.ArgumentError, match="no layer 1 with a head 9"):
        widget.show(1, 9)
    with pytest.raises(rg.ArgumentError, match="rows and columns"):
        widget.show(1, 2, slice(3))


def test_the_widget_answers_its_messages_until_it_is_gone(inspections: list[rg.Inspection]) -> None:
    pytest.importorskip("anywidget")
    widget = rg.viewer.widget(inspections)
    sent: queue.Queue[Any] = queue.Queue()
    widget.send = lambda content, buffers: sent.put((content, buffers))
    widget._handle_custom_msg(ask(3, PART.format(0, 1)), [])
    content, buffers = sent.get(timeout=20)
    assert (content["id"], content["status"], len(buffers[0])) == (3, 200, 4 * LENGTH)
    gone = weakref.ref(widget)
    widget.close()
    del widget
    gc.collect()
    assert gone() is None


def test_a_missing_anywidget_is_named(inspections: list[rg.Inspection], monkeypatch: pytest.MonkeyPatch) -> None:
    _kind.cache_clear()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(rg.MissingError, match=r"pip install 'regard\[jupyter\]'"):
        rg.viewer.widget(inspections)


HOST = """<!doctype html><main data-ready="host">a notebook</main><div id="cell"></div><script>
  const code = CODE, held = {page: PAGE, state: "", height: 600}, heard = {};
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  window.model = {
    get: (name) => held[name],
    set(name, value) { held[name] = value; },
    save_changes() {},
    fire(name, ...given) { for (const told of heard[name] ?? []) told(...given); },
    on(name, told) { (heard[name] ??= []).push(told); },
    off(name, told) { heard[name] = heard[name].filter((one) => one !== told); },
    async send(content) {
      const answer = await toPython(content);
      if (answer) model.fire("msg:custom", answer[0], [bytes(answer[1])]);
    },
  };
  import(URL.createObjectURL(new Blob([code], {type: "text/javascript"}))).then((module) => {
    window.end = module.default.render({model, el: document.querySelector("#cell")});
  });
</script>"""


def test_the_page_in_the_frame(browser: Any, inspections: list[rg.Inspection], tmp_path: Path) -> None:
    """The module that notebooks load, with a model in the place of theirs: numbers come, the state goes both ways."""
    pytest.importorskip("anywidget")
    widget = rg.viewer.widget(inspections, tokens=["</script><b>"] * LENGTH)
    sent: queue.Queue[Sent] = queue.Queue()
    letters = Letters(Answers(widget.subjects, tmp_path), lambda content, body: sent.put((content, body)))

    def to_python(content: dict[str, Any]) -> Any:
        letters.take(content)
        if content["kind"] == "stop":
            return None
        answer, body = sent.get(timeout=20)
        return [answer, base64.b64encode(body).decode()]

    path = tmp_path / "host.html"
    path.write_text(HOST.replace("CODE", script_json(static("widget.js"))).replace("PAGE", script_json(widget.page)))
    with visiting(browser, path.as_uri(), exposed={"toPython": to_python}) as visit:
        page, frame = visit.page, visit.page.frames[1]
        frame.wait_for_selector("main[data-ready]", timeout=30_000)
        got = frame.evaluate(
            "async () => Array.from(await document.querySelector('main').viewer.source.part("
            "{record: 0, layer: 1, head: 2}, 250, 251, 0, 300, 0))"
        )
        torch.testing.assert_close(
            torch.tensor(got[:251]), inspections[1].weights[0, 2, 250, :251], atol=1e-6, rtol=1e-4
        )
        page.evaluate("() => { model.set('state', 'at=0.1.2&scale=linear'); model.fire('change:state'); }")
        frame.wait_for_selector("main[data-ready^='0.1.2/']", timeout=30_000)
        frame.evaluate("() => document.querySelector('main').viewer.set({scale: 'uniform'})")
        page.wait_for_function("() => model.get('state').includes('scale=uniform')", timeout=10_000)
        assert "at=0.1.2" in page.evaluate("() => model.get('state')")

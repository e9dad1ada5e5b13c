"""The server: the same numbers as the page's own, and what it refuses."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from tests.viewer.conftest import visiting

import regard as rg
from regard.viewer import Server, serve
from regard.viewer.maps import HeadMaps
from regard.viewer.server import MOST_WAITING, Answers, RefusalError, Turns
from regard.viewer.subject import subject_of

LENGTH = 300


@pytest.fixture(scope="module")
def inspection() -> rg.Inspection:
    q, k = torch.randn((2, 1, 2, LENGTH, 8), generator=torch.Generator().manual_seed(0)).unbind()
    return rg.inspect(q, k, k, mask=rg.Causal())


@pytest.fixture(scope="module")
def server(inspection: rg.Inspection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(inspection, tokens=["t"] * LENGTH, cache=tmp_path_factory.mktemp("maps")) as running:
        yield running


def get(server: Server, path: str | None = None, **headers: str) -> tuple[int, bytes]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("GET", parts.path if path is None else path, skip_host=True)
    for name, value in {"Host": parts.netloc, **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def own(server: Server, rest: str) -> str:
    return urlsplit(server.url).path + rest


TILE = "tile?record=0&layer=0&head=1&hide=0&zr=1&zc=1&row=0&col=0"


def test_the_page_and_its_numbers(server: Server, inspection: rg.Inspection) -> None:
    status, body = get(server)
    assert status == 200
    assert b"connect-src 'self'" in body
    for _ in range(200):
        status, body = get(server, own(server, "overview?record=0&layer=0&head=1&hide=0"))
        if json.loads(body)["done"] == 1:
            break
        time.sleep(0.02)
    status, body = get(server, own(server, TILE))
    assert status == 200
    planes = np.frombuffer(body, np.float32).reshape(4, LENGTH // 2, LENGTH // 2)
    dense = inspection.weights[0, 1]
    pooled = inspection.weights.pool(LENGTH // 2, LENGTH // 2)[0, 1]
    torch.testing.assert_close(torch.from_numpy(planes[0].copy()), pooled, atol=1e-6, rtol=1e-4)
    status, body = get(server, own(server, "part?record=0&layer=0&head=1&hide=0&r0=7&r1=9&c0=0&c1=300"))
    part = torch.from_numpy(np.frombuffer(body, np.float32).reshape(2, LENGTH).copy())
    torch.testing.assert_close(part.nan_to_num(), dense[7:9], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "headers", "status", "message"),
    [
        (None, {"Host": "evil.example"}, 403, "127.0.0.1 and localhost only"),
        (None, {"Host": "127.0.0.1"}, 403, "127.0.0.1 and localhost only"),
        (None, {"Origin": "http://evil.example"}, 403, "its own page only"),
        (None, {"Origin": "null"}, 403, "its own page only"),
        (None, {"Sec_Fetch_Site": "cross-site"}, 403, "its own page only"),
        ("/", {}, 403, "token"),
        ("/wrong/", {}, 403, "token"),
        ("/wrong/tile?record=0", {}, 403, "token"),
        ("/../../etc/passwd", {}, 403, "token"),
        ("{own}../../../etc/passwd", {}, 403, "token"),
        ("{own}%2e%2e%2fetc%2fpasswd", {}, 404, "nothing of this name"),
        ("{own}tile", {}, 400, "tile takes the numbers"),
        ("{own}tile?record=0&layer=0&head=9&hide=0&zr=0&zc=0&row=0&col=0", {}, 404, "no such layer and head"),
        ("{own}tile?record=0&layer=0&head=0&hide=0&zr=0&zc=0&row=9&col=0", {}, 404, "outside of the matrix"),
        ("{own}tile?record=0&layer=0&head=0&hide=0&zr=-1&zc=0&row=0&col=0", {}, 400, "zr and zc are levels"),
        ("{own}part?record=0&layer=0&head=0&hide=0&r0=0&r1=999&c0=0&c1=1", {}, 400, "lies within 300 rows"),
    ],
)
def test_refusals(server: Server, path: str | None, headers: dict[str, str], status: int, message: str) -> None:
    whole = None if path is None else path.replace("{own}", urlsplit(server.url).path)
    got, body = get(server, whole, **headers)
    assert (got, message in body.decode()) == (status, True), body


def test_only_get_is_answered(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", urlsplit(server.url).path, b"x")
    assert connection.getresponse().status == 501
    connection.close()


def test_a_port_that_is_taken_is_named(server: Server, inspection: rg.Inspection) -> None:
    with pytest.raises(rg.ArgumentError, match=f"port {server.port} of 127.0.0.1 cannot be had"):
        serve(inspection, port=server.port)


def test_the_served_page_shows_the_same(browser: Any, server: Server, inspection: rg.Inspection) -> None:
    with visiting(browser, server.url, allow=server.url) as page:
        assert page.viewer("(v) => v.source.constructor === v.source.constructor && v.source.finest()") == 0
        got = page.viewer(
            "async (v) => Array.from(await v.source.part({record: 0, layer: 0, head: 0}, 250, 251, 0, 300, 1))"
        )
        want = inspection.weights[0, 0, 250].clone()
        want[0] = 0
        want /= want.sum()
        torch.testing.assert_close(torch.tensor(got[1:251]), want[1:251], atol=1e-6, rtol=1e-4)
        page.page.keyboard.press("h")
        page.until("document.querySelector('main').dataset.ready.endsWith('/1')")


def test_the_maps_stay_beside_the_record(inspection: rg.Inspection, tmp_path: Path) -> None:
    with serve(inspection, cache=tmp_path) as running:
        for _ in range(200):
            done = json.loads(get(running, own(running, "overview?record=0&layer=0&head=0&hide=0"))[1])["done"]
            if done == 1:
                break
            time.sleep(0.02)
    assert len(list(tmp_path.glob("*.maps"))) == 1
    with serve(inspection, cache=tmp_path) as running:
        first = json.loads(get(running, own(running, "overview?record=0&layer=0&head=0&hide=0"))[1])
        assert first == {"done": 1.0}


def answers(inspection: rg.Inspection, folder: Path) -> Answers:
    return Answers([subject_of(inspection)], folder)


ASKED = {"record": 0, "layer": 0, "head": 0, "hide": 0, "zr": 0, "zc": 0, "row": 0, "col": 0}


def test_what_nobody_waits_for_is_not_computed(
    inspection: rg.Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[object] = []
    monkeypatch.setattr(HeadMaps, "weights", lambda *given: computed.append(given))
    place = {"record": 0, "layer": 0, "head": 0, "hide": 0, "r0": 0, "r1": 1, "c0": 0, "c1": 1}
    with pytest.raises(RefusalError, match="nobody waits") as refused:
        answers(inspection, tmp_path).part(place, lambda: False)
    assert refused.value.status == 499
    assert not computed


def test_a_visitor_who_left_is_noticed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose connection is closed while another one is computed is dropped without being computed."""
    begun, go_on, computed = threading.Event(), threading.Event(), []

    def slow(maps: HeadMaps, rows: slice, cols: slice, hide: int = 0) -> torch.Tensor:
        computed.append(rows.start)
        begun.set()
        assert go_on.wait(20)
        return torch.zeros(1, 1)

    monkeypatch.setattr(HeadMaps, "weights", slow)
    path = own(server, "part?record=0&layer=0&head=0&hide=0&r0={0}&r1={1}&c0=0&c1=1")
    first = threading.Thread(target=get, args=(server, path.format(1, 2)))
    first.start()
    assert begun.wait(20)
    gone = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    gone.request("GET", path.format(2, 3))
    turns = server.answers.turns
    for _ in range(400):
        if turns._waiting == 2:
            break
        time.sleep(0.01)
    assert turns._waiting == 2
    gone.close()
    go_on.set()
    first.join(20)
    assert get(server, path.format(3, 4))[0] == 200
    assert computed == [1, 3]


def test_more_than_a_queue_of_requests_are_refused(inspection: rg.Inspection, tmp_path: Path) -> None:
    turns = answers(inspection, tmp_path).turns
    with turns:
        waiting = [
            threading.Thread(target=turns.at_once, args=(lambda: torch.zeros(1), lambda: True))
            for _ in range(MOST_WAITING)
        ]
        for thread in waiting:
            thread.start()
        for _ in range(400):
            if turns._waiting == MOST_WAITING:
                break
            time.sleep(0.01)
        with pytest.raises(RefusalError, match=f"{MOST_WAITING} requests are waiting already") as refused:
            turns.at_once(lambda: torch.zeros(1), lambda: True)
        assert refused.value.status == 503
    for thread in waiting:
        thread.join(20)
    assert turns._waiting == 0
    assert turns.at_once(lambda: torch.ones(1), lambda: True).item() == 1


def test_progress_grows_and_a_tile_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two strips of a sweep whoever waits gets its answer, and progress is told."""
    monkeypatch.setattr("regard.viewer.pyramid._STRIP_PAIRS", 1 << 12)
    monkeypatch.setattr("regard.viewer.pyramid._STRIP_ROWS", 64)
    q = torch.randn(1, 1, 4500, 4)
    asked = answers(rg.inspect(q, q, q, mask=rg.Causal()), tmp_path)
    told: list[float] = []
    step = Turns.step

    def watched(turns: Turns, closed: Any) -> None:
        step(turns, closed)
        told.append(asked.pyramid(0, 0, 0, 0).done)

    monkeypatch.setattr(Turns, "step", watched)
    assert asked.overview(0, 0, 0, 0) == {"done": 0.0}
    with pytest.raises(RefusalError, match="overview is not complete"):
        asked.tile({**ASKED, "zr": 1, "zc": 1}, lambda: True)
    assert asked.tile(ASKED, lambda: True).shape == (4, 256, 256)
    assert asked.pyramid(0, 0, 0, 0).done < 1
    for _ in range(800):
        if asked.overview(0, 0, 0, 0)["done"] == 1:
            break
        time.sleep(0.02)
    assert told == sorted(told)
    assert len({round(done, 3) for done in told}) > 20


def test_closing_ends_a_sweep(inspection: rg.Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    pool = HeadMaps.pool

    def slow(*given: Any) -> torch.Tensor:
        begun.set()
        assert go_on.wait(20)
        return pool(*given)

    monkeypatch.setattr(HeadMaps, "pool", slow)
    monkeypatch.setattr("regard.viewer.pyramid._STRIP_ROWS", 64)
    asked = answers(inspection, tmp_path)
    asked.overview(0, 0, 0, 0)
    assert begun.wait(20)
    asked.closed = True
    go_on.set()
    for _ in range(400):
        if not asked._building:
            break
        time.sleep(0.01)
    assert not asked._building
    assert asked.pyramid(0, 0, 0, 0).done < 1
    assert not list(tmp_path.glob("*.maps"))

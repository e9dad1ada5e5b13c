"""What every test stands on: one seed, one thread, one set of generated cases, and fresh buffers that hold NaN."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from tests.needs import program
from torch import Tensor

from regard import _ready
from regard.backends.native import Native, library, ready

torch.set_num_threads(1)
with torch.device("meta"):
    # torch lists what makes tensors when a default device is first used; it must not list the poisoned ones below.
    torch.empty(0)
settings.register_profile("regard", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("regard")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    # Another test may have changed what a choice depends on.
    _ready.forget()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every variant of the kernels that this processor can run, found only now: a plugin may put others in place."""
    given = any("variant" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "variant" in metafunc.fixturenames and not given:
        metafunc.parametrize("variant", library.supported() or ["none"], indirect=True)


@pytest.fixture
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variant of the kernels that is in use, each in turn."""
    if request.param == "none":
        assert library.missing()
        pytest.skip("no kernels were built here")
    name: str = request.param
    monkeypatch.setattr(library, "variant", lambda: name)
    return name


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if regard had been installed without a compiler, so that a choice is the same on every machine."""
    monkeypatch.setattr(Native, "missing", lambda self: "has no compiled kernels here")


@pytest.fixture(autouse=True)
def poisoned_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.empty` and its kin, called from inside regard, give NaN (or the largest integer) instead of leftovers."""

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def fill(*args: Any, **kwargs: Any) -> Tensor:
            fresh = make(*args, **kwargs)
            if torch.compiler.is_compiling() or not _called_from_regard():
                return fresh
            if fresh.is_floating_point():
                return fresh.fill_(torch.nan)
            return fresh.fill_(True) if fresh.dtype == torch.bool else fresh.fill_(torch.iinfo(fresh.dtype).max)

        return fill

    owners: tuple[tuple[Any, str], ...] = (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (Tensor, "new_empty"),
        (Tensor, "new_empty_strided"),
        (ready, "_empty_like"),
    )
    for owner, name in owners:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


def _called_from_regard() -> bool:
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("regard.")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    from playwright.sync_api import sync_playwright

    arguments = ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program("chromium"), args=arguments)
        yield started
        started.close()

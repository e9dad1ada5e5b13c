"""Running commands in this process."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from regard.cli.main import main


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("tour", "--section", "1", width=60)``."""

    def runner(*arguments: str, width: int = 80) -> Ran:
        monkeypatch.setenv("COLUMNS", str(width))
        status = main(arguments)
        return Ran(status, *capsys.readouterr())

    return runner

"""What a test needs beside Python packages: skipped where it is missing, failed in continuous integration."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def _absent(what: str, repair: str) -> NoReturn:
    message = f"{what} is missing: {repair}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def program(name: str) -> str:
    """The path of a program, e.g. the browser."""
    found = shutil.which(name)
    return found if found is not None else _absent(name, f"install it, on Debian with 'apt-get install {name}'")


def model_package(name: str) -> Path:
    """The folder of a package that carries a real model (models.txt)."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        _absent(name, "'make test' installs models.txt")
    return Path(spec.submodule_search_locations[0])

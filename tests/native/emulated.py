"""A pytest plugin that puts other builds of the kernels' variants in place of the installed ones.

pytest -p tests.native.emulated --kernels FOLDER tests/backends/test_native_backend.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from regard.backends.native import library


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernels", type=Path, required=True, help="where the libraries are: libregard_VARIANT.so")


def pytest_configure(config: pytest.Config) -> None:
    folder: Path = config.getoption("--kernels")
    built = {name: folder / f"libregard_{name}.so" for name in library.VARIANTS}
    found = {name: file for name, file in built.items() if file.exists()}
    installed = library.installed()
    library.installed = lambda: {**installed, **found}  # type: ignore[assignment]
    library.supported = lambda: tuple(found)  # type: ignore[assignment]
    library.variant = lambda: tuple(found)[-1]  # type: ignore[assignment]

"""transformers with regard registered, and offline."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

import regard as rg


@pytest.fixture(autouse=True, scope="session")
def registered() -> None:
    rg.adapters.huggingface.register()

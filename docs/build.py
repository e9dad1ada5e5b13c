"""Builds the documentation in both languages, strictly and without a network: ``python docs/build.py [FOLDER]``."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")

from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[1]


def main(site: Path) -> None:
    """English into ``site``, 繁體中文 into a folder of it; both share what the lessons computed."""
    for file, folder in (("mkdocs.yml", site), ("mkdocs.zh-TW.yml", site / "zh-TW")):
        config = load_config(str(ROOT / file), site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
        config.plugins.on_shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site")

"""The page of the documentation's example, from the record that ``docs/example.py`` keeps."""

from __future__ import annotations

from pathlib import Path

import regard as rg
from regard.viewer import to_html

RECORD = Path(__file__).parents[1] / "data" / "smollm2"
TITLE = "SmolLM2-135M-Instruct"
SCORES = ("sink_mass_1", "previous_token", "prefix_matching", "duplicate_token", "effective_tokens", "mean_distance")


def page() -> str:
    """The viewer as it is now, on the kept record."""
    record = rg.load_record(RECORD)
    return to_html(record, scores=record.head_scores(list(SCORES)), title=TITLE)

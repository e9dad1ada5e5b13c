"""A page whose heads show known patterns, and what a test asks of the screen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import regard as rg

LENGTH = 120
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dogs", "run"]
TOKENS = [f" {WORDS[n % 10]}" for n in range(LENGTH)]
SCORES = {
    "sink_mass_1": [[0.9, 0.1], [0.0, 0.2]],
    "previous_token": [[0.0, 0.1], [0.0, 0.8]],
    "prefix_matching": [[0.1, 0.02], [0.6, 0.1]],
    "mine": [[1.0, 2.0], [3.0, 4.0]],
}
MAP = "document.querySelector('main.regard').viewer.maps[0]"
STATE = "document.querySelector('main.regard').viewer.state"


def patterned() -> list[rg.Inspection]:
    """Two layers of two heads: a sink and noise; induction over the ten words and the previous token."""
    generator = torch.Generator().manual_seed(3)
    # The place of a token as cosines and sines, and the next one's and the word's: keys that queries can ask for.
    place = torch.arange(LENGTH) * 0.7
    turns = torch.stack([f(place * 0.31**n) for n in range(4) for f in (torch.cos, torch.sin)], -1)
    before = torch.stack([f((place + 0.7) * 0.31**n) for n in range(4) for f in (torch.cos, torch.sin)], -1)
    word = torch.eye(10)[torch.arange(LENGTH) % 10]
    zeros = torch.zeros(LENGTH, 14)
    sink_q, sink_k = torch.zeros(2, LENGTH, 24)
    sink_q[:, 0], sink_k[0, 0] = 1, 60
    noise_q, noise_k = torch.randn((2, LENGTH, 24), generator=generator)
    previous = (torch.cat([turns * 120, zeros, zeros[:, :2]], -1), torch.cat([before, zeros, zeros[:, :2]], -1))
    induction = (torch.cat([word * 40, zeros], -1), torch.cat([word.roll(1, 0), zeros], -1))
    first = rg.inspect(*_heads((sink_q, sink_k), (noise_q, noise_k)), mask=rg.Causal())
    second = rg.inspect(*_heads(induction, previous), mask=rg.Causal())
    return [first, second]


def noise(seed: int) -> torch.Tensor:
    """Queries, keys and values of two heads."""
    return torch.randn(3, 1, 2, LENGTH, 24, generator=torch.Generator().manual_seed(seed))


def _heads(*pairs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    q = torch.stack([q for q, _ in pairs])[None]
    k = torch.stack([k for _, k in pairs])[None]
    return q, k, k


def at(fragment: str, **options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", [(fragment, options)], indirect=True, ids=[fragment or "start"])


def pixel(page: Any, i: float, j: float, n: int = 0) -> list[int]:
    found: list[int] = page.page.evaluate(
        """([i, j, n]) => {
          const map = document.querySelector('main.regard').viewer.maps[n];
          const [p, v, d] = [map.plot(), map.view(), devicePixelRatio];
          const x = p.left + (j + 0.5 - v.x0) / (v.x1 - v.x0) * p.width;
          const y = p.top + (i + 0.5 - v.y0) / (v.y1 - v.y0) * p.height;
          return [...map.canvas.getContext('2d').getImageData(Math.round(x * d), Math.round(y * d), 1, 1).data];
        }""",
        [i, j, n],
    )
    return found


def view(page: Any, n: int = 0) -> dict[str, float]:
    found: dict[str, float] = page.page.evaluate(f"document.querySelector('main.regard').viewer.maps[{n}].view()")
    return found

"""What other attention viewers cost, measured once; where they are installed, `rivals` runs some of it again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A viewer on random causal weights.

    Attributes:
        tool: its name and version.
        tokens: rows and columns of each head's map.
        layers: how many.
        heads: of each layer.
        megabytes: of its page.
        seconds: from the start of the load until the page was idle; None where it did not load.
    """

    tool: str
    tokens: int
    layers: int
    heads: int
    megabytes: float
    seconds: float | None

    def __str__(self) -> str:
        took = "did not load" if self.seconds is None else f"idle after {self.seconds} s"
        return f"{self.tool}, {self.layers} × {self.heads} heads, {self.tokens:,} tokens: {self.megabytes} MB, {took}"


PEERS_MACHINE = "measured in November 2026 on 2 CPU cores in a headless Chromium 156"
PEERS = (
    Peer("BertViz 1.4.1 head view", 128, 12, 12, 64, 4.6),
    Peer("BertViz 1.4.1 head view", 256, 12, 12, 258, None),
    Peer("BertViz 1.4.1 head view", 512, 1, 12, 87, 65.6),
    Peer("BertViz 1.4.1 model view", 128, 12, 12, 64, 36.6),
    Peer("Inspectus 0.2.0", 256, 12, 12, 50.7, 3.1),
    Peer("Inspectus 0.2.0", 512, 1, 12, 17.1, 6.2),
    Peer("Inspectus 0.2.0", 1024, 1, 1, 5.9, 20.4),
    Peer("CircuitsVis 1.43.3 heads", 128, 1, 12, 4.0, 12.0),
    Peer("CircuitsVis 1.43.3 heads", 256, 1, 12, 12.1, 49.6),
)

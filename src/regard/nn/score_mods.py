"""Several score changes held by a module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from regard.scores import ScoreModification


class ScoreMods(nn.Module):
    """Score changes in the order in which they are applied; those with parameters are its submodules, by index."""

    def __init__(self, mods: Sequence[ScoreModification]) -> None:
        super().__init__()
        self.count = len(mods)
        for index, mod in enumerate(mods):
            setattr(self, str(index), mod)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ScoreModification:
        mod = getattr(self, str(range(self.count)[index]))
        assert isinstance(mod, ScoreModification)
        return mod

    def __iter__(self) -> Iterator[ScoreModification]:
        return (self[index] for index in range(self.count))

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"

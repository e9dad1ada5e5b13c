"""A cache of transformers that keeps its keys and values in `regard.cache`."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from regard.cache import FullCache


class FullLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's keys and values in memory that is ready for more, where transformers' own copies all of them a step.

    Args:
        max_length: the most tokens; memory is then taken once. Default: no limit, and memory grows by doubling.
    """

    def __init__(self, max_length: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kept = FullCache(max_length)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._kept.extend(key_states, value_states)
        return self.keys, self.values

    def get_max_length(self) -> int:
        return -1 if self._kept.max_length is None else self._kept.max_length

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        if self.is_initialized:
            self._kept.crop(self.keys.shape[-2])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._again()

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._again()

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._again()

    def reset(self) -> None:
        super().reset()
        self._kept.reset()

    def _again(self) -> None:
        """Keep what ``keys`` and ``values`` have become."""
        self._kept.reset()
        if self.is_initialized and self.keys.numel():
            self.keys, self.values = self._kept.extend(self.keys, self.values)


def full_cache(config: Any, max_length: int | None) -> Cache:
    """Transformers' cache for this configuration, whose layers that attend to everything are `FullLayer`."""
    cache = DynamicCache(config=config)
    cache.layers = [FullLayer(max_length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache

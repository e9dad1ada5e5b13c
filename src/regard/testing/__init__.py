"""Tools for testing attention: this library's own tests stand on them, and yours may.

- `oracle`: attention in float64, written apart from every backend; `assert_close_to_oracle` holds results to it, within
  a budget measured on honest arithmetic in the same precision.
- `assert_causal`, `assert_padding_invariant`, `assert_batch_invariant`, `assert_cache_consistent`: for modules.
- `make_case`: seeded attention calls with everything that users do to one.
- `strategies`: masks, score changes and sizes for hypothesis (``pip install regard[testing]``), imported when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regard.testing.asserts import assert_batch_invariant as assert_batch_invariant
from regard.testing.asserts import assert_cache_consistent as assert_cache_consistent
from regard.testing.asserts import assert_causal as assert_causal
from regard.testing.asserts import assert_padding_invariant as assert_padding_invariant
from regard.testing.cases import Case as Case
from regard.testing.cases import make_case as make_case
from regard.testing.oracle import Oracle as Oracle
from regard.testing.oracle import oracle as oracle
from regard.testing.tolerance import assert_close_to_oracle as assert_close_to_oracle

if TYPE_CHECKING:
    from regard.testing import strategies as strategies


def __getattr__(name: str) -> Any:
    if name == "strategies":
        from importlib import import_module

        return import_module("regard.testing.strategies")
    raise AttributeError(f"module 'regard.testing' has no attribute {name!r}")

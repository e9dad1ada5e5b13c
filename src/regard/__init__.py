"""Attention you can read, trust, run at the machine's limit, and look into at any length.

>>> import torch, regard as rg
>>> q, k, v = torch.randn(3, 1, 4, 10, 8).unbind()
>>> rg.attention(q, k, v, mask=rg.Causal() & rg.SlidingWindow(3)).shape
torch.Size([1, 4, 10, 8])
"""

import typing as _typing
from importlib import import_module as _import_module

from regard._attention import attention as attention
from regard._errors import ArgumentError as ArgumentError
from regard._errors import KindError as KindError
from regard._errors import MissingError as MissingError
from regard._errors import RecordError as RecordError
from regard._errors import RegardError as RegardError
from regard._errors import ShapeError as ShapeError
from regard._errors import StaleError as StaleError
from regard._errors import UnsupportedError as UnsupportedError
from regard._explain import explain as explain
from regard._inspect import Inspection as Inspection
from regard._inspect import inspect as inspect
from regard._merge import merge as merge
from regard._plan import Plan as Plan
from regard.masks import Causal as Causal
from regard.masks import Chunked as Chunked
from regard.masks import Dense as Dense
from regard.masks import Dilated as Dilated
from regard.masks import Document as Document
from regard.masks import Everything as Everything
from regard.masks import Mask as Mask
from regard.masks import Nothing as Nothing
from regard.masks import Padding as Padding
from regard.masks import Predicate as Predicate
from regard.masks import Prefix as Prefix
from regard.masks import SlidingWindow as SlidingWindow
from regard.scores import Alibi as Alibi
from regard.scores import Bias as Bias
from regard.scores import RelativeBias as RelativeBias
from regard.scores import ScoreMod as ScoreMod
from regard.scores import ScoreModification as ScoreModification
from regard.scores import Softcap as Softcap
from regard.weights import AttentionWeights as AttentionWeights

if _typing.TYPE_CHECKING:
    from regard import adapters as adapters
    from regard import cache as cache
    from regard import nn as nn
    from regard._replace import Replacement as Replacement
    from regard._replace import replace as replace
    from regard.recording import Record as Record
    from regard.recording import load_record as load_record
    from regard.recording import record as record

__version__ = "0.1.0"

_ON_FIRST_USE = {
    "adapters": "regard.adapters",
    "cache": "regard.cache",
    "load_record": "regard.recording",
    "nn": "regard.nn",
    "record": "regard.recording",
    "Record": "regard.recording",
    "replace": "regard._replace",
    "Replacement": "regard._replace",
}
"""Names whose module is imported when they are first used, so that ``import regard`` stays cheap."""


def __getattr__(name: str) -> object:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'regard' has no attribute {name!r}")
    module = _import_module(_ON_FIRST_USE[name])
    found = module if module.__name__ == f"regard.{name}" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})

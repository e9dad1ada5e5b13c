"""Masks as values: which query may attend to which key.

Every mask is a predicate on absolute positions, in one file, and combines with ``&``, ``|`` and ``~``. **True means
"may attend"**, everywhere.
"""

from regard.masks.algebra import And as And
from regard.masks.algebra import Not as Not
from regard.masks.algebra import Or as Or
from regard.masks.base import Mask as Mask
from regard.masks.blocks import BlockMap as BlockMap
from regard.masks.blocks import Coverage as Coverage
from regard.masks.blocks import Run as Run
from regard.masks.causal import Causal as Causal
from regard.masks.chunked import Chunked as Chunked
from regard.masks.dense import Dense as Dense
from regard.masks.dilated import Dilated as Dilated
from regard.masks.document import Document as Document
from regard.masks.intervals import RowIntervals as RowIntervals
from regard.masks.padding import Padding as Padding
from regard.masks.predicate import Predicate as Predicate
from regard.masks.prefix import Prefix as Prefix
from regard.masks.trivial import Everything as Everything
from regard.masks.trivial import Nothing as Nothing
from regard.masks.window import SlidingWindow as SlidingWindow

"""Numbers that say what an attention head does, each equal to its dense definition, all from at most one pass.

Each is a value, named after the paper that found it; `regard.Record.head_scores` puts them into a table. Attention
weights say where a head reads, which is not the same as what the model's output depends on (Jain & Wallace 2019,
arXiv:1902.10186; Wiegreffe & Pinter 2019, arXiv:1908.04626).
"""

from regard.head_scores.base import HeadScore as HeadScore
from regard.head_scores.compute import DEFAULT as DEFAULT
from regard.head_scores.compute import Scored as Scored
from regard.head_scores.compute import scores_of as scores_of
from regard.head_scores.compute import table_of as table_of
from regard.head_scores.entropy import Confidence as Confidence
from regard.head_scores.entropy import EffectiveTokens as EffectiveTokens
from regard.head_scores.entropy import Entropy as Entropy
from regard.head_scores.entropy import RelativeEntropy as RelativeEntropy
from regard.head_scores.local import LocalMass as LocalMass
from regard.head_scores.local import MeanDistance as MeanDistance
from regard.head_scores.logit import MaxLogit as MaxLogit
from regard.head_scores.match import Match as Match
from regard.head_scores.material import Material as Material
from regard.head_scores.offset import Offset as Offset
from regard.head_scores.offset import PreviousToken as PreviousToken
from regard.head_scores.received import HeavyHitters as HeavyHitters
from regard.head_scores.repeats import DuplicateToken as DuplicateToken
from regard.head_scores.repeats import Induction as Induction
from regard.head_scores.repeats import PrefixMatching as PrefixMatching
from regard.head_scores.repeats import induction_probe as induction_probe
from regard.head_scores.retrieval import QueryFocusedRetrieval as QueryFocusedRetrieval
from regard.head_scores.retrieval import Retrieval as Retrieval
from regard.head_scores.rollout import rollout as rollout
from regard.head_scores.similarity import head_similarity as head_similarity
from regard.head_scores.sink import LearnedSinkShare as LearnedSinkShare
from regard.head_scores.sink import SinkMass as SinkMass
from regard.head_scores.sink import SinkRate as SinkRate
from regard.head_scores.table import Head as Head
from regard.head_scores.table import HeadScores as HeadScores
from regard.head_scores.value_weighted import ValueWeighted as ValueWeighted

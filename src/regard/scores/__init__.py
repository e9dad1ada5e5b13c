"""Score changes: functions of one score and of where it stands, applied in the given order before the mask."""

from regard.scores.alibi import Alibi as Alibi
from regard.scores.base import ScoreModification as ScoreModification
from regard.scores.bias import Bias as Bias
from regard.scores.function import ScoreMod as ScoreMod
from regard.scores.relative_bias import RelativeBias as RelativeBias
from regard.scores.softcap import Softcap as Softcap

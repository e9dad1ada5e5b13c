"""Why attention: associative recall by a GRU, an LSTM and one attention layer of equal size, against distance.

Each item is one token that carries a key and a value; at the end a key is asked for, and its value is the answer (the
task of Graves et al. 2014 in the form of Arora et al. 2023, *Zoology*). ``regard recall`` runs it.
"""

from regard.recall.experiment import Experiment as Experiment
from regard.recall.experiment import Result as Result
from regard.recall.experiment import run as run
from regard.recall.experiment import total_steps as total_steps
from regard.recall.model import KINDS as KINDS
from regard.recall.model import Recaller as Recaller
from regard.recall.model import mixer_size as mixer_size
from regard.recall.task import Questions as Questions
from regard.recall.task import ask as ask

"""A small causal language model: read it, train it on any text, look inside it.

`LanguageModel` is the model, `train` its training, `generate` its text; ``regard train`` and ``regard generate`` are
the same from the command line. `corpora` holds two texts in the public domain.
"""

from regard.lm.checkpoint import Run as Run
from regard.lm.checkpoint import load_run as load_run
from regard.lm.corpus import Text as Text
from regard.lm.corpus import embedded as embedded
from regard.lm.corpus import read_files as read_files
from regard.lm.loop import Watcher as Watcher
from regard.lm.loop import Where as Where
from regard.lm.loop import resume as resume
from regard.lm.loop import train as train
from regard.lm.model import PRESETS as PRESETS
from regard.lm.model import LanguageModel as LanguageModel
from regard.lm.model import ModelConfig as ModelConfig
from regard.lm.model import preset as preset
from regard.lm.sampling import Sampling as Sampling
from regard.lm.sampling import generate as generate
from regard.lm.settings import Evaluation as Evaluation
from regard.lm.settings import Training as Training
from regard.lm.tokenizer import BytePairs as BytePairs
from regard.lm.tokenizer import Characters as Characters
from regard.lm.tokenizer import Tokenizer as Tokenizer

"""Recording the attention of whole models, and keeping it: `regard.record`, `regard.load_record`."""

from regard.recording.capture import record as record
from regard.recording.layer import Layer as Layer
from regard.recording.load import load_record as load_record
from regard.recording.recorded import Record as Record
from regard.recording.recorded import Run as Run

"""Recording the attention of whole models, and keeping it: `regard.record`, `regard.load_record`."""

from regard.recording.capture import record as record
from regard.recording.layer import Layer as Layer
from regard.recording.recorded import Record as Record
from regard.recording.recorded import Run as Run

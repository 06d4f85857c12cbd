"""Linear functions recorded once and replayed: what depends on the vector, and nothing else."""

from lossgeom.tape._recorder import NotRecordable
from lossgeom.tape.tape import Tape, record

__all__ = ["NotRecordable", "Tape", "record"]

"""Linear functions recorded once and replayed: what depends on the vector, and nothing else."""

from lossgeom.autodiff.tape._recorder import NotRecordable
from lossgeom.autodiff.tape.tape import Tape, record

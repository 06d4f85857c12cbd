"""Functions recorded once and replayed: what depends on the vector, and nothing else."""

from lossgeom.autodiff.recorded_products.compiled import Compiled
from lossgeom.autodiff.recorded_products.recorder import NotRecordable
from lossgeom.autodiff.recorded_products.tape import Tape, record

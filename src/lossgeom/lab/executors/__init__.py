"""Ways to run what studies are made of, one in each file."""

from lossgeom.lab.executors._job import Executor, Job, message
from lossgeom.lab.executors.processes import Processes

EXECUTORS = {"processes": Processes}

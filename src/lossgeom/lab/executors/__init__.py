"""Ways to run what studies are made of, one in each file."""

from lossgeom.lab.executors._job import Executor, Job, is_over, message
from lossgeom.lab.executors.processes import Processes
from lossgeom.lab.executors.ray import Ray
from lossgeom.lab.executors.slurm import Slurm

EXECUTORS = {"processes": Processes, "ray": Ray, "slurm": Slurm}

"""A loss of a model on data, at one point."""

from lossgeom.losses import NonFiniteError
from lossgeom.problem.passes import NoBatchesError
from lossgeom.problem.problem import Problem, checked_problem

"""Measure the geometry of a loss and the smoothness of its model, and say what follows."""

from importlib.metadata import version

from lossgeom import metrics, schedule
from lossgeom.claim import Claim
from lossgeom.curvature import GaussNewton, Hessian, sharpness
from lossgeom.estimate import Estimate
from lossgeom.linalg import EigenPairs, LinearOperator, top_eigenpairs
from lossgeom.losses import Loss
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.record import Record, RecordError
from lossgeom.smoothness import jacobian_norms
from lossgeom.stability import stability_threshold
from lossgeom.tracker import Tracker

__version__ = version("lossgeom")

__all__ = [
    "Claim",
    "EigenPairs",
    "Estimate",
    "GaussNewton",
    "Hessian",
    "LinearOperator",
    "Loss",
    "NonFiniteError",
    "Problem",
    "Record",
    "RecordError",
    "Tracker",
    "jacobian_norms",
    "metrics",
    "schedule",
    "sharpness",
    "stability_threshold",
    "top_eigenpairs",
]

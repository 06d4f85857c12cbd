"""Measure the geometry of a loss and the smoothness of its model, and say what follows."""

from importlib.metadata import version

from lossgeom import metrics, schedule
from lossgeom.claim import Claim
from lossgeom.curvature import (
    NTK,
    BlockDiagonal,
    ConjugateGaussNewton,
    EmpiricalFisher,
    GaussNewton,
    GradientCovariance,
    Hessian,
    LayerSummand,
    Mediators,
    MonteCarloFisher,
    ObjectiveHessian,
    OutputRoot,
    ParameterJacobian,
    PreconditionedHessian,
    Residual,
    block,
    layer_summands,
    off_block_mass,
    preconditioner,
    sharpness,
)
from lossgeom.diagnosis import DerivativeError, Diagnosis, check_derivatives, doctor
from lossgeom.estimate import Estimate
from lossgeom.linalg import (
    Diagonal,
    EigenPairs,
    LinearOperator,
    SpectralDensity,
    diagonal,
    effective_rank,
    frobenius_norm,
    spectral_density,
    spectral_norm,
    top_eigenpairs,
    trace,
)
from lossgeom.losses import Loss
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.record import Record, RecordError
from lossgeom.smoothness import jacobian_norms
from lossgeom.stability import stability_threshold
from lossgeom.tracker import Tracker

__version__ = version("lossgeom")

__all__ = [
    "NTK",
    "BlockDiagonal",
    "Claim",
    "ConjugateGaussNewton",
    "DerivativeError",
    "Diagnosis",
    "Diagonal",
    "EigenPairs",
    "EmpiricalFisher",
    "Estimate",
    "GaussNewton",
    "GradientCovariance",
    "Hessian",
    "LayerSummand",
    "LinearOperator",
    "Loss",
    "Mediators",
    "MonteCarloFisher",
    "NonFiniteError",
    "ObjectiveHessian",
    "OutputRoot",
    "ParameterJacobian",
    "PreconditionedHessian",
    "Problem",
    "Record",
    "RecordError",
    "Residual",
    "SpectralDensity",
    "Tracker",
    "block",
    "check_derivatives",
    "diagonal",
    "doctor",
    "effective_rank",
    "frobenius_norm",
    "jacobian_norms",
    "layer_summands",
    "metrics",
    "off_block_mass",
    "preconditioner",
    "schedule",
    "sharpness",
    "spectral_density",
    "spectral_norm",
    "stability_threshold",
    "top_eigenpairs",
    "trace",
]

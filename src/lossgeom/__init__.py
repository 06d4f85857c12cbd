"""Measure the geometry of a loss and the smoothness of its model, and say what follows."""

from importlib.metadata import version

from lossgeom import metrics, quadratic, schedule
from lossgeom.checkpoints import CheckpointError, load_checkpoint
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
from lossgeom.geometry import Geometry
from lossgeom.linalg import (
    Diagonal,
    EigenPairs,
    LinearOperator,
    Solution,
    SpectralDensity,
    conjugate_gradients,
    diagonal,
    effective_rank,
    frobenius_norm,
    lobpcg,
    spectral_density,
    spectral_norm,
    top_eigenpairs,
    trace,
)
from lossgeom.losses import Loss
from lossgeom.measurement import measure
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.record import Record, RecordError
from lossgeom.smoothness import jacobian_norms
from lossgeom.stability import stability_threshold
from lossgeom.tracker import Tracker

__version__ = version("lossgeom")

__all__ = [
    "NTK",
    "BlockDiagonal",
    "CheckpointError",
    "Claim",
    "ConjugateGaussNewton",
    "DerivativeError",
    "Diagnosis",
    "Diagonal",
    "EigenPairs",
    "EmpiricalFisher",
    "Estimate",
    "GaussNewton",
    "Geometry",
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
    "Solution",
    "SpectralDensity",
    "Tracker",
    "block",
    "check_derivatives",
    "conjugate_gradients",
    "diagonal",
    "doctor",
    "effective_rank",
    "frobenius_norm",
    "jacobian_norms",
    "layer_summands",
    "load_checkpoint",
    "lobpcg",
    "measure",
    "metrics",
    "off_block_mass",
    "preconditioner",
    "quadratic",
    "schedule",
    "sharpness",
    "spectral_density",
    "spectral_norm",
    "stability_threshold",
    "top_eigenpairs",
    "trace",
]

"""The public names of the library."""

from importlib import metadata as _metadata

from lossgeom import metrics, quadratic
from lossgeom.adversarial import (
    LogitChange,
    Robustness,
    certified_radius,
    logit_change,
    robustness,
)
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
from lossgeom.estimate import Estimate
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
    spectral_density,
    spectral_norm,
    top_eigenpairs,
    trace,
)
from lossgeom.lipschitz import (
    Bracket,
    LipschitzLower,
    lipschitz_global,
    lipschitz_local,
    lipschitz_lower,
    local_variation,
    local_variation_lower,
    local_variation_upper,
)
from lossgeom.losses import Loss
from lossgeom.metrics import Geometry
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.recording import schedule
from lossgeom.recording.monitor import watch
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.snapshot import measure
from lossgeom.recording.tracker import Tracker
from lossgeom.recording.watch import Watch
from lossgeom.smoothness import (
    JacobianNorms,
    LargestJacobianNorm,
    MultiplicativeInequality,
    SobolevSeminorms,
    jacobian_norms,
    largest_jacobian_norm,
    multiplicative_inequality,
    parameter_jacobian_norms,
    sobolev_seminorms,
)
from lossgeom.stability import (
    CriticalStep,
    UndefinedError,
    critical_sharpness,
    critical_step,
    realised_edge,
    stability_threshold,
    update_curvature,
)
from lossgeom.trust.doctor import Diagnosis, check_derivatives, doctor
from lossgeom.trust.trial import DerivativeError

__version__ = _metadata.version("lossgeom")

__all__ = [
    "NTK",
    "BlockDiagonal",
    "Bracket",
    "CheckpointError",
    "Claim",
    "ConjugateGaussNewton",
    "CriticalStep",
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
    "JacobianNorms",
    "LargestJacobianNorm",
    "LayerSummand",
    "LinearOperator",
    "LipschitzLower",
    "LogitChange",
    "Loss",
    "Mediators",
    "MonteCarloFisher",
    "MultiplicativeInequality",
    "NonFiniteError",
    "ObjectiveHessian",
    "OutputRoot",
    "ParameterJacobian",
    "PreconditionedHessian",
    "Problem",
    "Record",
    "RecordError",
    "Residual",
    "Robustness",
    "SobolevSeminorms",
    "Solution",
    "SpectralDensity",
    "Tracker",
    "UndefinedError",
    "Watch",
    "block",
    "certified_radius",
    "check_derivatives",
    "conjugate_gradients",
    "critical_sharpness",
    "critical_step",
    "diagonal",
    "doctor",
    "effective_rank",
    "frobenius_norm",
    "jacobian_norms",
    "largest_jacobian_norm",
    "layer_summands",
    "lipschitz_global",
    "lipschitz_local",
    "lipschitz_lower",
    "load_checkpoint",
    "local_variation",
    "local_variation_lower",
    "local_variation_upper",
    "logit_change",
    "measure",
    "metrics",
    "multiplicative_inequality",
    "off_block_mass",
    "parameter_jacobian_norms",
    "preconditioner",
    "quadratic",
    "realised_edge",
    "robustness",
    "schedule",
    "sharpness",
    "sobolev_seminorms",
    "spectral_density",
    "spectral_norm",
    "stability_threshold",
    "top_eigenpairs",
    "trace",
    "update_curvature",
    "watch",
]

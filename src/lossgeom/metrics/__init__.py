"""Tracked quantities, one in each file: settings that turn a Problem or Step into an Estimate."""

from lossgeom.metrics._metric import Metric
from lossgeom.metrics.accuracy import Accuracy
from lossgeom.metrics.accuracy_under_attack import AccuracyUnderAttack
from lossgeom.metrics.certified_accuracy import CertifiedAccuracy
from lossgeom.metrics.critical_sharpness import CriticalSharpness
from lossgeom.metrics.critical_step import CriticalStep
from lossgeom.metrics.edge_ratio import EdgeRatio
from lossgeom.metrics.effective_sharpness import EffectiveSharpness
from lossgeom.metrics.geometry import Geometry
from lossgeom.metrics.gradient_cosine import GradientCosine
from lossgeom.metrics.in_mode import InMode
from lossgeom.metrics.jacobian_norm import JacobianNorm
from lossgeom.metrics.lipschitz_global import LipschitzGlobal
from lossgeom.metrics.local_variation import LocalVariation
from lossgeom.metrics.loss import Loss
from lossgeom.metrics.parameter_jacobian_norm import ParameterJacobianNorm
from lossgeom.metrics.realised_edge import RealisedEdge
from lossgeom.metrics.sampling_error import SamplingError
from lossgeom.metrics.sharpness import Sharpness
from lossgeom.metrics.sobolev_seminorm import SobolevSeminorm
from lossgeom.metrics.step import Step, StepMetric
from lossgeom.metrics.update_curvature import UpdateCurvature

METRICS: tuple[type[Metric], ...] = (
    Loss,
    Accuracy,
    Sharpness,
    JacobianNorm,
    ParameterJacobianNorm,
    SobolevSeminorm,
    LipschitzGlobal,
    LocalVariation,
    AccuracyUnderAttack,
    CertifiedAccuracy,
    SamplingError,
)

STEP_METRICS: tuple[type[StepMetric], ...] = (
    EdgeRatio,
    EffectiveSharpness,
    RealisedEdge,
    UpdateCurvature,
    CriticalStep,
    CriticalSharpness,
    GradientCosine,
)

__all__ = [
    "METRICS",
    "STEP_METRICS",
    "Accuracy",
    "AccuracyUnderAttack",
    "CertifiedAccuracy",
    "CriticalSharpness",
    "CriticalStep",
    "EdgeRatio",
    "EffectiveSharpness",
    "Geometry",
    "GradientCosine",
    "InMode",
    "JacobianNorm",
    "LipschitzGlobal",
    "LocalVariation",
    "Loss",
    "Metric",
    "ParameterJacobianNorm",
    "RealisedEdge",
    "SamplingError",
    "Sharpness",
    "SobolevSeminorm",
    "Step",
    "StepMetric",
    "UpdateCurvature",
]

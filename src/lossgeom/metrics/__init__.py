"""Tracked quantities, one in each file: settings that turn a Problem into an Estimate."""

from lossgeom.metrics._metric import Metric
from lossgeom.metrics.accuracy import Accuracy
from lossgeom.metrics.accuracy_under_attack import AccuracyUnderAttack
from lossgeom.metrics.certified_accuracy import CertifiedAccuracy
from lossgeom.metrics.geometry import Geometry
from lossgeom.metrics.jacobian_norm import JacobianNorm
from lossgeom.metrics.lipschitz_global import LipschitzGlobal
from lossgeom.metrics.local_variation import LocalVariation
from lossgeom.metrics.loss import Loss
from lossgeom.metrics.parameter_jacobian_norm import ParameterJacobianNorm
from lossgeom.metrics.sharpness import Sharpness
from lossgeom.metrics.sobolev_seminorm import SobolevSeminorm
from lossgeom.metrics.step import Step, StepMetric

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
)

__all__ = [
    "METRICS",
    "Accuracy",
    "AccuracyUnderAttack",
    "CertifiedAccuracy",
    "Geometry",
    "JacobianNorm",
    "LipschitzGlobal",
    "LocalVariation",
    "Loss",
    "Metric",
    "ParameterJacobianNorm",
    "Sharpness",
    "SobolevSeminorm",
    "Step",
    "StepMetric",
]

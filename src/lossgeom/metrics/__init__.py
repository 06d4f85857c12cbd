"""Tracked quantities, one in each file: settings that turn a Problem into an Estimate."""

from lossgeom.metrics._metric import Metric
from lossgeom.metrics.accuracy import Accuracy
from lossgeom.metrics.jacobian_norm import JacobianNorm
from lossgeom.metrics.loss import Loss
from lossgeom.metrics.parameter_jacobian_norm import ParameterJacobianNorm
from lossgeom.metrics.sharpness import Sharpness
from lossgeom.metrics.sobolev_seminorm import SobolevSeminorm

METRICS: tuple[type[Metric], ...] = (
    Loss,
    Accuracy,
    Sharpness,
    JacobianNorm,
    ParameterJacobianNorm,
    SobolevSeminorm,
)

__all__ = [
    "METRICS",
    "Accuracy",
    "JacobianNorm",
    "Loss",
    "Metric",
    "ParameterJacobianNorm",
    "Sharpness",
    "SobolevSeminorm",
]

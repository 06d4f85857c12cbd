"""Tracked quantities, one in each file: settings that turn a Problem into an Estimate."""

from lossgeom.metrics._metric import Metric
from lossgeom.metrics.accuracy import Accuracy
from lossgeom.metrics.jacobian_norm import JacobianNorm
from lossgeom.metrics.loss import Loss
from lossgeom.metrics.sharpness import Sharpness

METRICS: tuple[type[Metric], ...] = (Loss, Accuracy, Sharpness, JacobianNorm)

__all__ = ["METRICS", "Accuracy", "JacobianNorm", "Loss", "Metric", "Sharpness"]

"""The length of an update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lossgeom.estimate import Estimate
from lossgeom.metrics.step import Step
from lossgeom.problem import NonFiniteError


@dataclass(frozen=True)
class UpdateNorm:
    """The Euclidean norm of the update, in the unit of the parameters.

    It is 0 where nothing moved, as in a step that a gradient scaler skips. What it cannot tell:
    whether the step was too long, which is a matter of the curvature along it. Cost: none.

    >>> UpdateNorm().name
    'update_norm'
    """

    name = "update_norm"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            NonFiniteError: where the update or the parameters before it are NaN or infinite.
        """
        norm = torch.linalg.vector_norm(step.update, dtype=torch.float64).item()
        if not (step.update.isfinite().all() and step.before.theta.isfinite().all()):
            raise NonFiniteError("the update, or the parameters before it, are NaN or infinite")
        return Estimate(norm)

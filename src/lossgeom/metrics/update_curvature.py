"""The curvature of the loss along an update."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import decay_of
from lossgeom.metrics.step import Step
from lossgeom.stability import update_curvature


@dataclass(frozen=True)
class UpdateCurvature:
    """Curvature over slope along the update, which is 2 at the edge, for any optimiser.

    See :func:`lossgeom.update_curvature` for the formula, the cost and what it cannot tell. The
    loss is that with the coupled weight decay of the optimiser, which it descends.

    >>> UpdateCurvature().name
    'update_curvature'
    """

    name = "update_curvature"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where the update does not go down to first order.
        """
        return update_curvature(step.before, step.update, weight_decay=decay_of(step))

"""The curvature of the loss along an update."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import check_settings
from lossgeom.metrics._of_step import decay_of, rounding_of
from lossgeom.metrics.step import Step
from lossgeom.stability import update_curvature
from lossgeom.stability.update_curvature import BY, By


@dataclass(frozen=True)
class UpdateCurvature:
    """Curvature over slope along the update, which is 2 at the edge, for any optimiser.

    See :func:`lossgeom.update_curvature` for the formula, the cost, ``by`` and what it cannot tell.
    The loss is that with the coupled weight decay of the optimiser, which it descends.

    >>> UpdateCurvature().name, UpdateCurvature("losses").name
    ('update_curvature', 'update_curvature_by_losses')
    """

    by: By = "product"

    def __post_init__(self) -> None:
        check_settings(self, {"by": BY})

    @property
    def name(self) -> str:
        """Key in records."""
        return "update_curvature" + ("" if self.by == "product" else f"_by_{self.by}")

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where the update does not go down to first order.
        """
        rounding = rounding_of(step) if self.by == "losses" else None
        decay = decay_of(step)
        return update_curvature(
            step.before, step.update, by=self.by, weight_decay=decay, rounding=rounding
        )

"""The realised edge of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import check_settings
from lossgeom.metrics._of_step import decay_of, matrix_of, rounding_of, threshold_of, top_pair
from lossgeom.metrics.edge_ratio import EdgeRatio
from lossgeom.metrics.step import Step
from lossgeom.stability import edge_factors, realised_edge

Factor = Literal["whole", "nominal", "alignment", "filtering"]
ALLOWED = {"factor": ("whole", "nominal", "alignment", "filtering")}


@dataclass(frozen=True)
class RealisedEdge:
    """The realised edge, which is above 1 where the step raised the loss; or a factor of it.

    See :func:`lossgeom.realised_edge` for the formula, the cost and what it cannot tell. The loss
    is that with the coupled weight decay of the optimiser, which it descends. The rounding of the
    loss is measured where the loss has changed by a factor of 2.

    Args:
        factor: ``"whole"``, or ``"nominal"``, ``"alignment"`` or ``"filtering"``, of which
            the realised edge is nominal * alignment / filtering; see
            :func:`lossgeom.stability.edge_factors`. They cost what :class:`EdgeRatio` costs.

    >>> RealisedEdge().name, RealisedEdge("alignment").name
    ('realised_edge', 'realised_edge_alignment')
    """

    factor: Factor = "whole"

    def __post_init__(self) -> None:
        check_settings(self, ALLOWED)

    @property
    def name(self) -> str:
        """Key in records."""
        return "realised_edge" + ("" if self.factor == "whole" else f"_{self.factor}")

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where the update does not go down to first order; of a factor, also
                where no threshold is known.
        """
        if self.factor == "whole":
            return _whole(step)
        threshold, matrix, edge = threshold_of(step), matrix_of(step), EdgeRatio()
        top = top_pair(step, matrix, edge.tol, edge.max_matvecs, edge.seed).top
        zeta = _whole(step).value
        given = step.before, step.update, zeta, matrix, top.value, threshold
        factors = edge_factors(*given, weight_decay=decay_of(step))
        return replace(top, value=getattr(factors, self.factor), residual=None)


def _whole(step: Step) -> Estimate:
    rounding = rounding_of(step)
    decay = decay_of(step)
    return realised_edge(
        step.before, step.update, after=step.after, weight_decay=decay, rounding=rounding
    )

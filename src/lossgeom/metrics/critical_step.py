"""The least multiple of an update that raises the loss."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._critical import check_other, measured
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem
from lossgeom.stability.critical_step import RTOL


@dataclass(frozen=True)
class CriticalStep:
    """The least multiple of the update that raises the loss, which is 1 at the edge.

    See :func:`lossgeom.critical_step` for how it is searched, the meaning of ``rtol``, the cost and
    what it cannot tell. The loss is that with the coupled weight decay of the optimiser, which it
    descends. It starts from the value at the step before, and the rounding of the loss is measured
    where the loss has changed by a factor of 2.

    Args:
        rtol: of the interval, relative to its upper end.
        other: the same model with another loss, to measure along the updates of this training: how
            many of these steps leave the basin of that loss.

    >>> CriticalStep().name
    'critical_step'
    """

    rtol: float = RTOL
    other: Problem | None = None

    def __post_init__(self) -> None:
        check_other(self.other)

    @property
    def name(self) -> str:
        """Key in records."""
        return "critical_step" if self.other is None else "relative_critical_step"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where rounding hides all changes of the loss, or the update is zero.
        """
        return measured(step, self.rtol, self.other).estimate

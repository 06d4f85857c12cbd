"""The sharpness that the critical step stands for."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import one_lr
from lossgeom.metrics.critical_step import check_other, critical_step_of
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem
from lossgeom.stability.critical_step import RTOL, sharpness_of


@dataclass(frozen=True)
class CriticalSharpness:
    """The sharpness along the update, by losses alone, whose threshold is 2 / lr, always.

    See :func:`lossgeom.critical_sharpness` for the formula, and :func:`lossgeom.critical_step` for
    the cost and what it cannot tell: it is an alarm of arrival and no distance. It is computed once
    with :class:`CriticalStep` of the same settings.

    Args:
        rtol: of the interval of the critical step, relative to its upper end.
        other: the same model with another loss, to measure along the updates of this training.

    >>> CriticalSharpness().name
    'critical_sharpness'
    """

    rtol: float = RTOL
    other: Problem | None = None

    def __post_init__(self) -> None:
        check_other(self.other)

    @property
    def name(self) -> str:
        """Key in records."""
        return "critical_sharpness" if self.other is None else "relative_critical_sharpness"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where the update goes up from the start, parameter groups differ in the
                learning rate, or as :class:`CriticalStep`.
        """
        lr = one_lr(step)
        return sharpness_of(critical_step_of(step, self.rtol, self.other), lr)

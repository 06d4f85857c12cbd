"""The least multiple of an update that raises the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import decay_of, rounding_of
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem
from lossgeom.problem.model_facts import Key
from lossgeom.stability import CriticalStep as Found
from lossgeom.stability import critical_step
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
        return critical_step_of(step, self.rtol, self.other).estimate


def check_other(other: Problem | None) -> None:
    """Refuse what is no problem."""
    if not (other is None or isinstance(other, Problem)):
        raise TypeError(f"expected other to be a Problem, got {type(other).__name__}")


def critical_step_of(step: Step, rtol: float, other: Problem | None) -> Found:
    """The critical step, from that of the step before."""
    return step.cache.value(
        Key(critical_step_of, (rtol, other)), lambda: _measured(step, rtol, other)
    )


def _measured(step: Step, rtol: float, other: Problem | None) -> Found:
    problem = step.before if other is None else other.at(step.before.theta)
    rounding = rounding_of(step) if other is None else None
    decay = decay_of(step) if other is None else 0.0
    name = "critical step" if other is None else "critical step of another loss"
    start = step.memory.get(name)
    found = critical_step(
        problem, step.update, rtol=rtol, start=start, weight_decay=decay, rounding=rounding
    )
    usable = 0 < found.value < math.inf
    step.memory[name] = found.value if usable else None
    return found

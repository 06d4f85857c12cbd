"""When training ends: functions from the step to whether it was the last."""

from __future__ import annotations

import math
from collections.abc import Callable

from lossgeom.metrics import Accuracy, Loss, Metric
from lossgeom.problem import NonFiniteError, Problem

StopRule = Callable[[int], bool]


def loss_below(problem: Problem, value: float, every: int = 1) -> StopRule:
    """Stop where the loss is at most a value.

    Args:
        problem: of the model that is trained, on the data whose loss it is.
        value: of the loss.
        every: how many steps there are from one look at it to the next.
    """
    return lambda step: step % every == 0 and _value(Loss(), problem) <= value


def accuracy_above(problem: Problem, value: float, every: int = 1) -> StopRule:
    """Stop where the accuracy is at least a value; see :func:`loss_below`."""
    return lambda step: step % every == 0 and _value(Accuracy(), problem) >= value


def diverged(problem: Problem, value: float, every: int = 1) -> StopRule:
    """Stop where the loss is more than a value, or is no number; see :func:`loss_below`."""
    return lambda step: step % every == 0 and not _value(Loss(), problem) <= value


def _value(metric: Metric, problem: Problem) -> float:
    """What a quantity is now, or NaN, which is neither more nor less than anything."""
    try:
        return float(metric(problem.refreshed()).value)
    except NonFiniteError:
        return math.nan


STOP_RULES = {"loss": loss_below, "accuracy": accuracy_above, "divergence": diverged}

"""The critical step of a step of an optimiser, computed once."""

from __future__ import annotations

import math

from lossgeom.metrics._of_step import decay_of, rounding_of
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem
from lossgeom.problem.model_facts import Key
from lossgeom.stability import CriticalStep, critical_step


def check_other(other: Problem | None) -> None:
    """Refuse what is no problem."""
    if not (other is None or isinstance(other, Problem)):
        raise TypeError(f"expected other to be a Problem, got {type(other).__name__}")


def measured(step: Step, rtol: float, other: Problem | None) -> CriticalStep:
    """The critical step, from that of the step before."""
    return step.cache.value(Key(measured, (rtol, other)), lambda: _measured(step, rtol, other))


def _measured(step: Step, rtol: float, other: Problem | None) -> CriticalStep:
    problem = step.before if other is None else other.at(step.before.theta)
    rounding = rounding_of(step) if other is None else None
    decay = decay_of(step) if other is None else 0.0
    name = "critical step" if other is None else f"critical step of {id(other)}"
    start = step.memory.get(name)
    found = critical_step(
        problem, step.update, rtol=rtol, start=start, weight_decay=decay, rounding=rounding
    )
    usable = 0 < found.value < math.inf
    step.memory[name] = found.value if usable else None
    return found

"""Another metric in another mode of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import Metric
from lossgeom.metrics.step import Step, StepMetric
from lossgeom.problem import Problem
from lossgeom.problem.model_facts import Mode, PointCache


@dataclass(frozen=True)
class InMode:
    """Another metric with the modules of the model in a mode, whatever that of the problem is.

    So that what BatchNorm or Dropout are in training stands beside what they are in use. What a
    metric keeps from one step for the next is kept for each mode apart.

    Args:
        metric: what to measure.
        mode: ``"eval"`` or ``"train"``.

    >>> from lossgeom.metrics import Loss
    >>> InMode(Loss(), "eval").name
    'loss (eval)'
    """

    metric: Metric
    mode: Mode = "eval"

    @property
    def name(self) -> str:
        """Key in records."""
        return f"{self.metric.name} ({self.mode})"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return self.metric(problem.in_mode(self.mode))

    def of_step(self, step: Step) -> Estimate:
        """Measure, and keep for the next step what the metric keeps."""
        before = step.before.in_mode(self.mode)
        if not isinstance(self.metric, StepMetric):
            return self.metric(before)
        memory = step.memory.setdefault(self.name, {})
        there = replace(step, before=before, memory=memory, cache=PointCache())
        return self.metric.of_step(there)

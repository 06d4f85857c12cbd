"""The curvature that mini-batches have along their own gradients."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.stability import batch_sharpness


@dataclass(frozen=True)
class BatchSharpness:
    """The mean over mini-batches of the curvature of each along its own gradient.

    See :func:`lossgeom.batch_sharpness` for the formula, the settings, the cost and what it cannot
    tell. It is the form without momentum.

    >>> BatchSharpness().name
    'batch_sharpness'
    """

    batch_size: int | None = None
    batches: int = 64
    target: float | None = None
    seed: int = 0
    name = "batch_sharpness"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return batch_sharpness(problem, **asdict(self))

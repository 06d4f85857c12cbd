"""The length of the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem


@dataclass(frozen=True)
class GradientNorm:
    """The Euclidean norm of the gradient of the empirical loss.

    It is that of the problem's data, before clipping and without weight decay. What it cannot tell:
    how near a minimum is, since at the edge of stability it goes on being large along the sharpest
    direction. Cost: a gradient, once at a point.

    >>> GradientNorm().name
    'gradient_norm'
    """

    name = "gradient_norm"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure.

        Raises:
            NonFiniteError: where the loss is NaN or infinite.
        """
        gradient = problem.cached(Problem.gradient)
        return Estimate(torch.linalg.vector_norm(gradient, dtype=torch.float64).item())

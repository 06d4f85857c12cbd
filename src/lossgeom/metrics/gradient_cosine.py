"""How far the gradient that an optimiser is given is that of what is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem


@dataclass(frozen=True)
class GradientCosine:
    r"""The cosine between the gradient that the optimisers were given and that of the problem.

    .. math:: \frac{g \cdot \nabla L(\theta_n)}{\|g\| \, \|\nabla L(\theta_n)\|}

    with g as it was clipped and accumulated. It is 1 where training is full-batch descent on the
    very loss that is measured, whatever the clipping by norm; a mini-batch, another draw of
    Dropout, or a loss that is measured on a part of the data make it less. It tells nothing of what
    an optimiser adds itself, such as weight decay.

    Cost: one gradient, none where another metric of the step has needed it. The value is NaN where
    one of the two is zero, or where a closure computes gradients that nobody sees.

    >>> GradientCosine().name
    'gradient_cosine'
    """

    name = "gradient_cosine"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            NonFiniteError: where the loss is NaN or infinite.
        """
        if step.gradient is None:
            return Estimate(math.nan, converged=False)
        mine, given = step.before.cached(Problem.gradient).double(), step.gradient.double()
        lengths = float(mine.norm() * given.norm())
        return Estimate(float(mine @ given) / lengths if lengths else math.nan)

"""How far the gradient that an optimiser is given is that of what is measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lossgeom.estimate import Estimate
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem
from lossgeom.stability import UndefinedError


@dataclass(frozen=True)
class GradientCosine:
    r"""The cosine between the gradient that the optimisers were given and that of the problem.

    .. math:: \frac{g \cdot \nabla L(\theta_n)}{\|g\| \, \|\nabla L(\theta_n)\|}

    with g as it was clipped and accumulated. It is 1 where training is full-batch descent on the
    very loss that is measured, whatever the clipping by norm; a mini-batch, another draw of
    Dropout, or a loss that is measured on a part of the data make it less.

    What it cannot tell: which of these it is, and what an optimiser adds itself, such as weight
    decay; at the end of training, where gradients are little more than rounding, it may be small.

    Cost: one gradient, none where another metric of the step has needed it.

    >>> GradientCosine().name
    'gradient_cosine'
    """

    name = "gradient_cosine"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where a gradient is zero, or closures compute it where nobody sees it.
            NonFiniteError: where the loss is NaN or infinite.
        """
        mine = step.before.cached(Problem.gradient).double()
        given = torch.zeros_like(mine) if step.gradient is None else step.gradient.double()
        lengths = float(mine.norm() * given.norm())
        if not lengths:
            raise UndefinedError(
                "the cosine of two gradients needs both; one of them is zero, or a closure "
                "computes it where nobody sees it"
            )
        return Estimate(float(mine @ given) / lengths)

"""A certified bound of the Lipschitz constant."""

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.lipschitz import lipschitz_global
from lossgeom.problem import Problem


@dataclass(frozen=True)
class LipschitzGlobal:
    """A certified upper bound of the Lipschitz constant of the outputs in the input, in l2.

    See :func:`lossgeom.lipschitz_global` for the formula, the cost, and the models that it knows.

    >>> LipschitzGlobal().name
    'lipschitz_global'
    """

    name = "lipschitz_global"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure.

        Raises:
            TypeError: for a model that no bound is known for.
        """
        return Estimate(lipschitz_global(problem))

"""Sobolev seminorms of the model on the data."""

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import check_settings
from lossgeom.problem import Problem
from lossgeom.smoothness import sobolev_seminorms
from lossgeom.smoothness.sobolev import OF, Of, checked_orders

ORDERS = (1, 2, 3)  # measured together: one more costs little


@dataclass(frozen=True)
class SobolevSeminorm:
    """A seminorm of the gradients of the outputs, in the input or in the parameters, of order k.

    Elementwise, as in :func:`lossgeom.sobolev_seminorms`, or with ``euclidean`` norms of the
    gradients; see there for the formula and the cost, which is spent once at a point for all orders
    up to 3.

    >>> SobolevSeminorm().name, SobolevSeminorm("parameters", 2, euclidean=True).name
    ('input_sobolev_seminorm_1', 'parameters_euclidean_sobolev_seminorm_2')
    """

    of: Of = "input"
    k: int = 1
    euclidean: bool = False

    def __post_init__(self) -> None:
        check_settings(self, {"of": OF})
        checked_orders([self.k])

    @property
    def name(self) -> str:
        """Key in records."""
        return f"{self.of}_{'euclidean_' * self.euclidean}sobolev_seminorm_{self.k}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        orders = ORDERS if self.k in ORDERS else (self.k,)
        found = problem.cached(sobolev_seminorms, self.of, orders)
        return Estimate((found.euclidean if self.euclidean else found.elementwise)[self.k])

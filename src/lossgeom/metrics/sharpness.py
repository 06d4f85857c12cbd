"""The largest eigenvalue of the loss Hessian."""

from dataclasses import asdict, dataclass

from lossgeom.curvature import sharpness
from lossgeom.estimate import Estimate
from lossgeom.problem import Problem


@dataclass(frozen=True)
class Sharpness:
    """The largest signed eigenvalue of the Hessian of the data loss.

    See :func:`lossgeom.sharpness` for the formula, the meaning of ``tol`` and the cost.

    >>> Sharpness().name
    'sharpness'
    """

    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    name = "sharpness"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return sharpness(problem, **asdict(self))

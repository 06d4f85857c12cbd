"""The sharpness that rescaling a network does not change."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.stability import adaptive_sharpness


@dataclass(frozen=True)
class AdaptiveSharpness:
    """The largest eigenvalue of the Hessian with each parameter relative to its own size.

    See :func:`lossgeom.adaptive_sharpness` for the formula, the settings, the cost and what it
    cannot tell.

    >>> AdaptiveSharpness().name
    'adaptive_sharpness'
    """

    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    name = "adaptive_sharpness"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return adaptive_sharpness(problem, **asdict(self))

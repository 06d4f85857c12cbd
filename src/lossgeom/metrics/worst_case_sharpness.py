"""How much the loss rises near by, at worst."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lossgeom.estimate import Estimate
from lossgeom.lipschitz.lipschitz import check_radius
from lossgeom.problem import Problem
from lossgeom.stability import worst_case_sharpness_lower


@dataclass(frozen=True)
class WorstCaseSharpnessLower:
    """A lower estimate of how much the loss rises in a ball round the parameters, at worst.

    See :func:`lossgeom.worst_case_sharpness_lower` for the formula, the settings, the cost and what
    it cannot tell.

    >>> WorstCaseSharpnessLower().name, WorstCaseSharpnessLower(0.1, adaptive=True).name
    ('worst_case_sharpness_lower_0.05', 'adaptive_worst_case_sharpness_lower_0.1')
    """

    radius: float = 0.05
    adaptive: bool = False
    steps: int = 10
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_radius(self.radius)

    @property
    def name(self) -> str:
        """Key in records."""
        return f"{'adaptive_' * self.adaptive}worst_case_sharpness_lower_{self.radius:g}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return worst_case_sharpness_lower(problem, **asdict(self))

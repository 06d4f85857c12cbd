"""How much the input-output Jacobian varies near the data."""

from dataclasses import dataclass
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.lipschitz import local_variation_lower, local_variation_upper
from lossgeom.lipschitz.lipschitz import check_radius
from lossgeom.metrics._metric import OVER, Over, check_settings
from lossgeom.problem import Problem

Side = Literal["lower", "upper"]
ALLOWED = {"side": ("lower", "upper"), "over": OVER}


@dataclass(frozen=True)
class LocalVariation:
    """The local variation of the Jacobian on balls round the examples: its maximum or mean.

    Which of the two ``over`` says. From one side: a lower estimate, of any model, by an ascent with
    ``steps``, ``restarts`` and ``seed``; or a certified upper bound, of models that one is known
    for. See :func:`lossgeom.local_variation` for the formula and the cost.

    >>> LocalVariation(0.5, "upper").name
    'local_variation_upper_max_0.5'
    """

    radius: float = 0.1
    side: Side = "lower"
    over: Over = "max"
    steps: int = 50
    restarts: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_radius(self.radius)
        check_settings(self, ALLOWED)

    @property
    def name(self) -> str:
        """Key in records."""
        return f"local_variation_{self.side}_{self.over}_{self.radius:g}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure.

        Raises:
            TypeError: for the upper side of a model that no bound is known for.
        """
        if self.side == "upper":
            values = local_variation_upper(problem, self.radius)
        else:
            ascent = {"steps": self.steps, "restarts": self.restarts, "seed": self.seed}
            values = local_variation_lower(problem, self.radius, **ascent)
        return Estimate((values.max() if self.over == "max" else values.mean()).item())

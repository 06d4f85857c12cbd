"""The curvature along the gradient or the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import check_settings
from lossgeom.metrics.step import Step
from lossgeom.stability import directional_sharpness

Along = Literal["gradient", "update"]


@dataclass(frozen=True)
class DirectionalSharpness:
    """The curvature of the loss along its gradient, or along the update that was made.

    See :func:`lossgeom.directional_sharpness` for the formula, the cost and what it cannot tell.

    Args:
        along: ``"gradient"``, of the problem's loss, or ``"update"``.

    >>> DirectionalSharpness().name, DirectionalSharpness("update").name
    ('directional_sharpness', 'directional_sharpness_along_update')
    """

    along: Along = "gradient"

    def __post_init__(self) -> None:
        check_settings(self, {"along": ("gradient", "update")})

    @property
    def name(self) -> str:
        """Key in records."""
        suffix = "" if self.along == "gradient" else f"_along_{self.along}"
        return f"directional_sharpness{suffix}"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where gradient or update are zero.
        """
        return directional_sharpness(step.before, None if self.along == "gradient" else step.update)

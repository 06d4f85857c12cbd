"""How fast gradient flow raises the sharpness."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import stabilisation_of
from lossgeom.metrics.step import Step


@dataclass(frozen=True)
class ProgressiveSharpening:
    r"""The rate alpha of progressive sharpening; where it is negative, the sharpness falls.

    See :func:`lossgeom.self_stabilisation` for the formula, the cost, which is spent once for this
    and the like of the same settings, and what it cannot tell. Third derivatives are tried first.

    Args:
        tol: on the residual of the sharpness, relative to it.
        max_matvecs: products to spend on it.
        seed: of the random start.

    >>> ProgressiveSharpening().name
    'progressive_sharpening'
    """

    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    name = "progressive_sharpening"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            DerivativeError: where the third derivative is wrong.
        """
        found = stabilisation_of(step, **asdict(self))
        top = found.sharpness
        return Estimate(found.sharpening, converged=top.converged, matvecs=top.matvecs)

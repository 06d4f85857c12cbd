"""How strongly oscillation lowers the sharpness."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import stabilisation_of
from lossgeom.metrics.step import Step


@dataclass(frozen=True)
class SelfStabilisation:
    r"""The strength beta of self-stabilisation, which holds the sharpness at the edge.

    See :func:`lossgeom.self_stabilisation` for the formula, the cost, which is spent once for this
    and the like of the same settings, and what it cannot tell. Third derivatives are tried first.

    Args:
        tol: on the residual of the sharpness, relative to it.
        max_matvecs: products to spend on it.
        seed: of the random start.

    >>> SelfStabilisation().name
    'self_stabilisation'
    """

    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    name = "self_stabilisation"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            DerivativeError: where the third derivative is wrong.
        """
        found = stabilisation_of(step, **asdict(self))
        top = found.sharpness
        return Estimate(found.stabilisation, converged=top.converged, matvecs=top.matvecs)

"""The largest eigenvalue that the threshold of an optimiser is for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import matrix_of, top_pair
from lossgeom.metrics.step import Step


@dataclass(frozen=True)
class EffectiveSharpness:
    """The largest eigenvalue of the matrix whose stability the optimiser's threshold decides.

    It is the sharpness as a preconditioner and weight decay make it; for plain gradient descent and
    momentum the sharpness itself, computed once for both. Its edge is the threshold in the row.
    Cost, and what it cannot tell: as :class:`EdgeRatio`.

    Args:
        tol: on the residual, relative to the eigenvalue, as of :func:`lossgeom.sharpness`.
        max_matvecs: products to spend.
        seed: of the random start.

    Source: Cohen et al., arXiv:2207.14484.

    >>> EffectiveSharpness().name
    'effective_sharpness'
    """

    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    name = "effective_sharpness"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where no threshold is known, or there is no preconditioner yet.
        """
        return top_pair(step, matrix_of(step), **asdict(self)).top

"""How near a step is to the edge of stability of its optimiser."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import matrix_of, threshold_of, top_pair
from lossgeom.metrics.step import Step


@dataclass(frozen=True)
class EdgeRatio:
    r"""The largest eigenvalue over its threshold: 1 at the edge of stability.

    .. math:: \lambda_{\max}(M) / T

    of the matrix M that the threshold T of the step's optimisers is for, see
    :func:`lossgeom.stability_threshold`: the Hessian for gradient descent and momentum, the
    preconditioned one for RMSprop and Adam, with the weight decay of the objective where groups
    differ in it. It has no unit. This is the gauge of the distance from the edge; the realised
    edge, the curvature along the update and the critical step are alarms of arrival.

    What it cannot tell: whether mini-batches are stable, whose edge is lower; and, of an adaptive
    optimiser, more than while its preconditioner changes slowly.

    Cost: about 10 products with the matrix from the eigenvector of the very step before, of which
    most look for a larger eigenvalue that has come up since, and 10 to 25 otherwise, each about two
    gradients; once a step for all metrics of that matrix with the same settings.

    Args:
        tol: on the residual, relative to the eigenvalue, as of :func:`lossgeom.sharpness`.
        max_matvecs: products to spend.
        seed: of the random start.

    >>> EdgeRatio().name
    'edge_ratio'
    """

    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    name = "edge_ratio"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where no threshold is known, or it is not positive.
        """
        threshold = threshold_of(step)
        top = top_pair(step, matrix_of(step), **asdict(self)).top
        residual = None if top.residual is None else top.residual / threshold
        return replace(top, value=top.value / threshold, residual=residual)

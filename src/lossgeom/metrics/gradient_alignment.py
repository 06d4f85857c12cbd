"""How much of the gradient lies in the sharpest directions."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import top_pair
from lossgeom.metrics.step import Step
from lossgeom.stability import eigenspace_share


@dataclass(frozen=True)
class GradientAlignment:
    """The share of the gradient in the span of the top eigenvectors of the Hessian, from 0 to 1.

    See :func:`lossgeom.eigenspace_share` for the formula, the cost and what it cannot tell; with
    k = 1 the eigenvector is that of :class:`EdgeRatio` where the threshold is for the Hessian.

    Args:
        k: how many eigenvectors.
        tol: on their residuals, relative to the eigenvalues.
        max_matvecs: products to spend, though never fewer than 20 k for several.
        seed: of the random start.

    >>> GradientAlignment().name, GradientAlignment(5).name
    ('gradient_alignment', 'gradient_alignment_5')
    """

    k: int = 1
    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0

    @property
    def name(self) -> str:
        """Key in records."""
        return "gradient_alignment" + ("" if self.k == 1 else f"_{self.k}")

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where the gradient is zero.
        """
        H = Hessian(step.before)
        pairs = top_pair(step, H, self.tol, self.max_matvecs, self.seed, self.k)
        return eigenspace_share(step.before, k=self.k, pairs=pairs)

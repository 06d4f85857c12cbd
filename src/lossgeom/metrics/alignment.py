"""How much of the gradient or the update lies in the sharpest directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import check_settings
from lossgeom.metrics._of_step import top_pair
from lossgeom.metrics.step import Step
from lossgeom.stability import eigenspace_share

Of = Literal["gradient", "update"]


@dataclass(frozen=True)
class Alignment:
    """The share of the gradient, or of the update, in the span of the top eigenvectors, 0 to 1.

    See :func:`lossgeom.eigenspace_share` for the formula, the cost and what it cannot tell; with
    k = 1 the eigenvector is that of :class:`EdgeRatio` where the threshold is for the Hessian.

    Args:
        of: ``"gradient"``, of the problem's loss, or ``"update"``.
        k: how many eigenvectors of the Hessian.
        tol: on their residuals, relative to the eigenvalues.
        max_matvecs: products to spend, though never fewer than 20 k for several.
        seed: of the random start.

    >>> Alignment().name, Alignment("update", 5).name
    ('gradient_alignment', 'update_alignment_5')
    """

    of: Of = "gradient"
    k: int = 1
    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, {"of": ("gradient", "update")})

    @property
    def name(self) -> str:
        """Key in records."""
        return f"{self.of}_alignment" + ("" if self.k == 1 else f"_{self.k}")

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where the gradient or the update is zero.
        """
        H = Hessian(step.before)
        pairs = top_pair(step, H, self.tol, self.max_matvecs, self.seed, self.k)
        vector = step.update if self.of == "update" else None
        return eigenspace_share(step.before, vector, k=self.k, pairs=pairs)

"""The share of examples whose class is proved not to change."""

from dataclasses import dataclass

from lossgeom.adversarial import certified_radius
from lossgeom.estimate import Estimate
from lossgeom.lipschitz.ball import Norm, check_norm
from lossgeom.problem import Problem


@dataclass(frozen=True)
class CertifiedAccuracy:
    """The share of examples that are right, with a certified radius above eps.

    See :func:`lossgeom.certified_radius`, whose cost is spent once at a point for all eps, and for
    the models that it knows. It is at most the robust accuracy; :class:`AccuracyUnderAttack` is at
    least that.

    >>> CertifiedAccuracy(0.5).name
    'certified_accuracy_l2_0.5'
    """

    eps: float = 0.1
    norm: Norm = "l2"

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if not self.eps >= 0:
            raise ValueError(f"expected eps >= 0, got {self.eps}")

    @property
    def name(self) -> str:
        """Key in records."""
        return f"certified_accuracy_{self.norm}_{self.eps:g}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure.

        Raises:
            TypeError: for a model that no bound is known for.
        """
        radii = problem.cached(certified_radius, norm=self.norm)
        return Estimate((radii > self.eps).double().mean().item())

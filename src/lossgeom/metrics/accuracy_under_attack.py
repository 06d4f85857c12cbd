"""The share of examples that no attack flips."""

from dataclasses import asdict, dataclass

from lossgeom.adversarial import robustness
from lossgeom.estimate import Estimate
from lossgeom.lipschitz.ball import Norm, check_norm
from lossgeom.problem import Problem


@dataclass(frozen=True)
class AccuracyUnderAttack:
    """The share of examples whose class no attack of a size was found to change.

    Projected gradient descent, as in :func:`lossgeom.robustness`, see there for the settings and
    the cost. It is at least the robust accuracy; :class:`CertifiedAccuracy` is at most that.

    >>> AccuracyUnderAttack(0.03, "linf").name
    'accuracy_under_attack_linf_0.03'
    """

    eps: float = 0.1
    norm: Norm = "l2"
    steps: int = 40
    restarts: int = 4
    seed: int = 0
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_norm(self.norm)

    @property
    def name(self) -> str:
        """Key in records."""
        return f"accuracy_under_attack_{self.norm}_{self.eps:g}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        found = robustness(problem, certify=False, **asdict(self))
        return Estimate(found.accuracy_under_attack.item())

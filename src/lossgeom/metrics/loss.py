"""The empirical loss."""

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem


@dataclass(frozen=True)
class Loss:
    """The empirical loss, in the unit of the problem's loss.

    With ``minus_label_entropy``, less the mean entropy of the (smoothed) labels: the mean
    Kullback-Leibler divergence of the prediction from the label, whose least value is 0 whatever
    the smoothing.

    Cost: one forward pass. Source: MacDonald et al., arXiv:2305.14683, figure 1.

    >>> Loss().name, Loss(minus_label_entropy=True).name
    ('loss', 'loss_minus_label_entropy')
    """

    minus_label_entropy: bool = False

    @property
    def name(self) -> str:
        """Key in records."""
        return "loss_minus_label_entropy" if self.minus_label_entropy else "loss"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure.

        Raises:
            ValueError: for the label entropy of a loss other than unweighted cross-entropy.
        """
        entropy = problem.label_entropy() if self.minus_label_entropy else 0.0
        return Estimate(problem.loss() - entropy)

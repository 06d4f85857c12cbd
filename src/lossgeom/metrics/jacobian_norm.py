"""Norm of the input-output Jacobian over the data."""

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import NORM_ALLOWED, NORM_NAMES, Over, check_settings, over_examples
from lossgeom.problem import Problem
from lossgeom.smoothness import jacobian_norms
from lossgeom.smoothness.norms import Norm
from lossgeom.smoothness.outputs import NamedOutputs


@dataclass(frozen=True)
class JacobianNorm:
    """A norm of the input-output Jacobian: its maximum or mean over the examples.

    See :func:`lossgeom.jacobian_norms` for the formula, the cost, which is spent once at a point
    however many of these metrics ask, and for ``wrt`` and ``embedding``. The standard error is that
    of sampling at the examples there are; an estimate has converged if every example has.

    >>> JacobianNorm(outputs="softmax").name
    'softmax_jacobian_norm_max'
    """

    outputs: NamedOutputs = "logits"
    over: Over = "max"
    norm: Norm = "spectral"
    wrt: str | int | None = None
    embedding: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, NORM_ALLOWED)

    @property
    def name(self) -> str:
        """Key in records."""
        where = "".join(f"_in_{x}" for x in (self.wrt, self.embedding) if x is not None)
        return f"{self.outputs}_jacobian_{NORM_NAMES[self.norm]}_{self.over}{where}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        norms = problem.cached(
            jacobian_norms, self.outputs, norm=self.norm, wrt=self.wrt, embedding=self.embedding
        )
        return over_examples(norms, self.over)

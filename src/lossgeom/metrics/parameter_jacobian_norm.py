"""Norm of the Jacobian in the parameters over the data."""

from dataclasses import dataclass

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import NORM_ALLOWED, NORM_NAMES, Over, check_settings, over_examples
from lossgeom.problem import Problem
from lossgeom.smoothness import parameter_jacobian_norms
from lossgeom.smoothness.norms import Norm
from lossgeom.smoothness.outputs import NamedOutputs


@dataclass(frozen=True)
class ParameterJacobianNorm:
    """A norm of the Jacobian of the outputs in the parameters: its maximum or mean over examples.

    See :func:`lossgeom.parameter_jacobian_norms` for the formula and the cost, which is spent once
    at a point for maximum and mean. The standard error is as that of :class:`JacobianNorm`.

    >>> ParameterJacobianNorm(over="mean").name
    'logits_parameter_jacobian_norm_mean'
    """

    outputs: NamedOutputs = "logits"
    over: Over = "max"
    norm: Norm = "spectral"

    def __post_init__(self) -> None:
        check_settings(self, NORM_ALLOWED)

    @property
    def name(self) -> str:
        """Key in records."""
        return f"{self.outputs}_parameter_jacobian_{NORM_NAMES[self.norm]}_{self.over}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        norms = problem.cached(parameter_jacobian_norms, self.outputs, norm=self.norm)
        return over_examples(norms, self.over)

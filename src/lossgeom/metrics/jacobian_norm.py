"""Spectral norm of the input-output Jacobian over the data."""

from dataclasses import dataclass
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.smoothness import jacobian_norms
from lossgeom.smoothness.jacobian_norm import OUTPUTS, Outputs

Over = Literal["max", "mean"]
OVER: tuple[Over, ...] = ("max", "mean")


@dataclass(frozen=True)
class JacobianNorm:
    """The spectral norm of the input-output Jacobian: its maximum or mean over the examples.

    See :func:`lossgeom.jacobian_norms` for the formula and the cost, which is spent once at a
    point however many of these metrics ask.

    >>> JacobianNorm(outputs="softmax").name
    'softmax_jacobian_norm_max'
    """

    outputs: Outputs = "logits"
    over: Over = "max"

    def __post_init__(self) -> None:
        if self.outputs not in OUTPUTS or self.over not in OVER:
            raise ValueError(
                f"expected outputs in {OUTPUTS} and over in {OVER}, got {self.outputs!r} and "
                f"{self.over!r}"
            )

    @property
    def name(self) -> str:
        """Key in records."""
        return f"{self.outputs}_jacobian_norm_{self.over}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        norms = problem.cached(
            ("jacobian_norms", self.outputs), lambda: jacobian_norms(problem, self.outputs)
        )
        return Estimate((norms.max() if self.over == "max" else norms.mean()).item())

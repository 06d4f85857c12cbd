"""Norm of the input-output Jacobian over the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.smoothness import JacobianNorms, jacobian_norms
from lossgeom.smoothness.norms import NORMS, Norm
from lossgeom.smoothness.outputs import NAMED_OUTPUTS, NamedOutputs
from lossgeom.wording import one_of

Over = Literal["max", "mean"]
OVER: tuple[Over, ...] = ("max", "mean")


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
        check_settings(self, {"outputs": NAMED_OUTPUTS, "over": OVER, "norm": NORMS})

    @property
    def name(self) -> str:
        """Key in records."""
        kind = "frobenius_norm" if self.norm == "frobenius" else "norm"
        where = "" if self.wrt is None else f"_in_{self.wrt}"
        where += "" if self.embedding is None else f"_in_{self.embedding}"
        return f"{self.outputs}_jacobian_{kind}_{self.over}{where}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        norms = problem.cached(
            jacobian_norms, self.outputs, norm=self.norm, wrt=self.wrt, embedding=self.embedding
        )
        return over_examples(norms, self.over)


def check_settings(metric: object, allowed: Mapping[str, Sequence[str]]) -> None:
    """Raise for a setting that is not among those there are."""
    for name, values in allowed.items():
        if getattr(metric, name) not in values:
            raise ValueError(
                f"expected {name} to be one of {one_of(values)}, got {getattr(metric, name)!r}"
            )


def over_examples(norms: JacobianNorms, over: Over) -> Estimate:
    """The maximum or mean of norms, with the standard error of sampling."""
    converged, errors = bool(norms.converged.all()), norms.stderr
    if over == "max":
        stderr = None if errors is None else errors[norms.argmax].item()
        return Estimate(norms.max, stderr, converged=converged)
    stderr = None if errors is None else errors.square().sum().sqrt().item() / len(norms)
    return Estimate(norms.mean, stderr, converged=converged)

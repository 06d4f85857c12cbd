"""What every metric is, and what several of them share."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from lossgeom.estimate import Estimate
from lossgeom.messages.wording import one_of
from lossgeom.problem import Problem
from lossgeom.smoothness import JacobianNorms
from lossgeom.smoothness.norms import NORMS
from lossgeom.smoothness.outputs import NAMED_OUTPUTS

Over = Literal["max", "mean"]
OVER: tuple[Over, ...] = ("max", "mean")
NORM_ALLOWED = {"outputs": NAMED_OUTPUTS, "over": OVER, "norm": NORMS}
NORM_NAMES = {"spectral": "norm", "frobenius": "frobenius_norm"}


@runtime_checkable
class Metric(Protocol):
    """Settings, fixed when it is made, that turn a Problem into an Estimate."""

    @property
    def name(self) -> str:
        """Key in records; different quantities have different names."""
        ...

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        ...


def check_settings(metric: object, allowed: Mapping[str, Sequence[str]]) -> None:
    """Refuse a setting that is not one of those allowed."""
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

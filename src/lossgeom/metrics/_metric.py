"""What every metric is."""

from typing import Protocol, runtime_checkable

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem


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

"""A step of an optimiser, and what measures one."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.problem.model_facts import PointCache
from lossgeom.stability.optimizer_state import OptimizerState


@dataclass(frozen=True, eq=False)
class Step:
    r"""What a step of an optimiser was.

    Attributes:
        before: the problem at :math:`\theta_n`.
        update: :math:`D = \theta_{n+1} - \theta_n`, the change that was really made.
        state: the optimisers at this step, with its learning rates.
        gradient: what the optimisers were given, clipped and accumulated; ``None`` where they
            compute it themselves, in a closure.
        memory: what metrics keep from one step for the next, such as an eigenvector to start from,
            by keys of their own; empty at the first step.
        cache: what metrics have computed of this step, for each other.
    """

    before: Problem
    update: Float[Tensor, " P"]
    state: OptimizerState
    gradient: Float[Tensor, " P"] | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    cache: PointCache = field(default_factory=PointCache)

    @cached_property
    def after(self) -> Problem:
        r"""The problem at :math:`\theta_{n+1}`."""
        return self.before.at(self.before.theta + self.update)


@runtime_checkable
class StepMetric(Protocol):
    """Settings, fixed when it is made, that turn a Step into an Estimate.

    A metric of a problem may be one of steps, too, where it starts from what the step before knew.
    """

    @property
    def name(self) -> str:
        """Key in records; different quantities have different names."""
        ...

    def of_step(self, step: Step) -> Estimate:
        """Measure."""
        ...

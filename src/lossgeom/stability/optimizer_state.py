"""The settings and state of live optimisers, in the order of a problem's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from lossgeom.curvature import Hessian
from lossgeom.linalg import LinearOperator
from lossgeom.problem import Problem
from lossgeom.stability.threshold import Threshold, stability_threshold


@dataclass(frozen=True, eq=False)
class OptimizerState:
    """A snapshot of the optimisers of one model; what they do later does not change it.

    Attributes:
        kinds: types of the optimisers, such as ``"SGD"``.
        groups: settings of their parameter groups, without the parameters.
        lr: the learning rate; ``None`` where groups differ in it.
        threshold: of the largest eigenvalue of :meth:`matrix`.
    """

    kinds: tuple[str, ...]
    groups: tuple[Mapping[str, Any], ...]
    lr: float | None
    threshold: Threshold

    def matrix(self, problem: Problem) -> LinearOperator:
        """The matrix whose largest eigenvalue is compared with the threshold, at a point."""
        return Hessian(problem)


def optimizer_state(problem: Problem, *optimizers: Optimizer) -> OptimizerState:  # noqa: ARG001
    """Read the optimisers that train a problem's model."""
    groups = tuple(
        {name: value for name, value in group.items() if name != "params"}
        for optimizer in optimizers
        for group in optimizer.param_groups
    )
    rates = {float(group["lr"]) for group in groups}
    return OptimizerState(
        kinds=tuple(type(optimizer).__name__ for optimizer in optimizers),
        groups=groups,
        lr=rates.pop() if len(rates) == 1 else None,
        threshold=stability_threshold(optimizers[0]),
    )

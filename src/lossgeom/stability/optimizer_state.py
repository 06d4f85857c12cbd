"""The settings and state of live optimisers, in the order of a problem's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lossgeom.curvature import Hessian, ObjectiveHessian, PreconditionedHessian
from lossgeom.curvature.optimizers import (
    NoPreconditionerError,
    known_kind,
    members,
    unwrapped_optimizer,
)
from lossgeom.curvature.preconditioned_hessian import Preconditioning
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
        preconditioning: what is in that matrix beside the Hessian, if anything is; or why it
            cannot be read.
        unknown: those kinds of which no threshold is known.
    """

    kinds: tuple[str, ...]
    groups: tuple[Mapping[str, Any], ...]
    lr: float | None
    threshold: Threshold
    preconditioning: Preconditioning | NoPreconditionerError | None = None
    unknown: tuple[str, ...] = ()

    def matrix(self, problem: Problem) -> LinearOperator:
        """The matrix whose largest eigenvalue is compared with the threshold, at a point.

        It is the one that ``threshold.matrix`` names, with preconditioner and weight decay as they
        were read.

        Args:
            problem: of the parameters that the snapshot was taken for, at any point.

        Raises:
            ValueError: if no threshold is known; or there is no preconditioner, before the first
                step of an adaptive optimiser, or where decoupled decay alone is unstable.
        """
        if self.threshold.status == "unknown":
            raise ValueError(
                "no matrix is known whose largest eigenvalue decides about the stability of "
                f"{', '.join(self.kinds)}: {self.threshold.formula}; {self.threshold.instead} "
                "answer for any optimiser"
            )
        if isinstance(self.preconditioning, NoPreconditionerError):
            raise self.preconditioning
        if self.preconditioning is None:
            return Hessian(problem)
        if self.threshold.matrix == "ObjectiveHessian":
            return ObjectiveHessian(problem, self.preconditioning.weight_decay)
        return PreconditionedHessian(problem, self.preconditioning)


def optimizer_state(problem: Problem, *optimizers: Optimizer) -> OptimizerState:
    """Read the optimisers that train a problem's model.

    Settings, preconditioner and weight decays are copied. The problem may be anywhere, such as
    where the model was before the step that left this state.

    Args:
        problem: its parameters are all updated by the optimisers.
        optimizers: all of the model, also inside those of Accelerate or Lightning.

    Raises:
        TypeError: if one is not an optimiser, or there is none.
        ValueError: if they do not update all parameters of the problem.

    >>> import torch, lossgeom as lg
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = lg.Problem(model, "squared_error", [(torch.ones(1, 1), torch.ones(1, 1))])
    >>> state = optimizer_state(problem, torch.optim.SGD(model.parameters(), lr=0.5))
    >>> state.kinds, state.lr, state.threshold, state.matrix(problem).dense().item()
    (('SGD',), 0.5, 4.0, 1.0)
    """
    live = [unwrapped_optimizer(each) for each in optimizers]
    threshold = stability_threshold(*live)
    groups = tuple(
        {name: _settled(value) for name, value in group.items() if name != "params"}
        for optimizer in live
        for group in optimizer.param_groups
    )
    rates = {float(group["lr"]) for group in groups if "lr" in group}
    return OptimizerState(
        kinds=tuple(type(optimizer).__name__ for optimizer in live),
        groups=groups,
        lr=rates.pop() if len(rates) == 1 else None,
        threshold=threshold,
        preconditioning=_preconditioning(problem, live, threshold),
        unknown=tuple(type(each).__name__ for each in live if known_kind(each) is None),
    )


def _preconditioning(
    problem: Problem, live: list[Optimizer], threshold: Threshold
) -> Preconditioning | NoPreconditionerError | None:
    if threshold.status == "unknown":
        return None
    if threshold.matrix == "Hessian":
        members(problem, live)  # an error if they do not update all
        return None
    try:
        return Preconditioning.of(problem, *live)
    except NoPreconditionerError as error:
        return error


def _settled(value: Any) -> Any:
    """A setting that later steps and schedules do not change."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value.detach().clone()
    if isinstance(value, (tuple, list)):
        return tuple(map(_settled, value))
    return value

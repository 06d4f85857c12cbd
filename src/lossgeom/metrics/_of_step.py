"""What metrics of a step share: eigenpairs and rounding, each computed once and kept."""

from __future__ import annotations

from torch import Tensor

from lossgeom.curvature import Hessian
from lossgeom.curvature.optimizers import NoPreconditionerError
from lossgeom.curvature.preconditioned_hessian import Preconditioning
from lossgeom.linalg import EigenPairs, LinearOperator, top_eigenpairs
from lossgeom.metrics.step import Step
from lossgeom.problem.model_facts import Key
from lossgeom.stability import (
    OptimizerState,
    SelfStabilisation,
    UndefinedError,
    loss_rounding,
    self_stabilisation,
)

ROUNDING = "rounding of the loss"
CHANGED = 2.0  # the factor by which a loss may change before its rounding is measured anew


def matrix_of(step: Step) -> LinearOperator:
    """The matrix whose largest eigenvalue the threshold is for.

    Raises:
        UndefinedError: where no threshold is known, or there is no preconditioner yet.
    """
    _check_known(step)
    try:
        return step.state.matrix(step.before)
    except NoPreconditionerError as error:
        raise UndefinedError(str(error)) from error


def _check_known(step: Step) -> None:
    threshold = step.state.threshold
    if threshold.value is None:
        raise UndefinedError(
            f"there is no threshold to compare with: {threshold.formula}; {threshold.instead} and "
            "critical_step need none"
        )


def threshold_of(step: Step) -> float:
    """The threshold of the step's optimisers.

    Raises:
        UndefinedError: where none is known, or the one there is is not positive.
    """
    _check_known(step)
    threshold = step.state.threshold
    if threshold <= 0:
        raise UndefinedError(
            f"the threshold of {_named(step.state)} is {threshold:.3g}: with this weight decay and "
            "learning rate it is unstable at any sharpness"
        )
    return threshold


def decay_of(step: Step) -> float | Tensor:
    """The coupled weight decay of the loss that the step descends, as far as it is known.

    The decoupled one of AdamW belongs to no loss.

    Raises:
        UndefinedError: where the loss is maximised.
    """
    state = step.state
    if any(group.get("maximize", False) for group in state.groups):
        raise UndefinedError(
            f"{_named(state)} maximises the loss here, and this is about updates that lower it; "
            "EdgeRatio answers"
        )
    if isinstance(state.preconditioning, Preconditioning):
        return state.preconditioning.weight_decay
    if state.threshold.value is None or state.preconditioning is not None:
        return 0.0
    return max(float(group.get("weight_decay", 0.0)) for group in state.groups)


def one_lr(step: Step) -> float:
    """The learning rate of the step.

    Raises:
        UndefinedError: where parameter groups differ in it, or it is 0.
    """
    if not step.state.lr:
        why = "is 0" if step.state.lr is not None else "differs between parameter groups"
        raise UndefinedError(
            f"the learning rate of {_named(step.state)} {why}; CriticalStep and UpdateCurvature "
            "need none"
        )
    return step.state.lr


def _named(state: OptimizerState) -> str:
    return " and ".join(dict.fromkeys(state.kinds))


def top_pair(
    step: Step, matrix: LinearOperator, tol: float, max_matvecs: int, seed: int, k: int = 1
) -> EigenPairs:
    """The top eigenpairs of a matrix of the step, from those of the step before; once a step."""
    kind = type(matrix).__name__
    key = Key(top_pair, (kind, tol, max_matvecs, seed, k))
    name = f"top eigenvector of {kind}" if k == 1 else f"top {k} eigenvectors of {kind}"

    def found() -> EigenPairs:
        limit = max_matvecs if k == 1 else max(max_matvecs, 20 * k)
        start = step.memory.get(name)
        pairs = top_eigenpairs(matrix, k, tol=tol, max_matvecs=limit, start=start, seed=seed)
        if pairs.vectors.isfinite().all():
            step.memory[name] = pairs.vectors.contiguous()  # as a checkpoint holds it
        return pairs

    return step.cache.value(key, found)


def rounding_of(step: Step) -> float:
    """The rounding of the loss, measured anew where the loss has changed much."""
    loss = step.before.loss()
    known = step.memory.get(ROUNDING)
    if known is None or not abs(known[0]) / CHANGED <= abs(loss) <= abs(known[0]) * CHANGED:
        known = step.memory[ROUNDING] = (loss, loss_rounding(step.before))
    return float(known[1])


def stabilisation_of(step: Step, tol: float, max_matvecs: int, seed: int) -> SelfStabilisation:
    """The coefficients of self-stabilisation, once a step."""

    def found() -> SelfStabilisation:
        pairs = top_pair(step, Hessian(step.before), tol, max_matvecs, seed)
        return self_stabilisation(step.before, pairs=pairs)

    return step.cache.value(Key(stabilisation_of, (tol, max_matvecs, seed)), found)

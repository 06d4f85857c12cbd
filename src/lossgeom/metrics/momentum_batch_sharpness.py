"""The curvature that mini-batches have along their steps with momentum."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import one_lr
from lossgeom.metrics.step import Step
from lossgeom.stability import UndefinedError, batch_sharpness
from lossgeom.stability.edge_series import PLAIN_SGD

HEAVY_BALL = PLAIN_SGD, "2 (1 + momentum)/lr"  # the thresholds of SGD with momentum or without
ROUNDING = 0.01  # of an update: what it may have lost where it is looked into


@dataclass(frozen=True)
class MomentumBatchSharpness:
    """The mean over mini-batches of curvature over slope along gradient plus momentum.

    See :func:`lossgeom.batch_sharpness` for the formula, the settings, the cost and what it cannot
    tell. The momentum is what the update of ``torch.optim.SGD`` has besides the gradient that it
    was given. Without momentum it is :class:`BatchSharpness`.

    >>> MomentumBatchSharpness().name
    'momentum_batch_sharpness'
    """

    batch_size: int | None = None
    batches: int = 64
    target: float | None = None
    seed: int = 0
    name = "momentum_batch_sharpness"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: for another optimiser than SGD with heavy-ball momentum alone, one that
                was given no gradient, or an update that is little more than rounding.
        """
        return batch_sharpness(step.before, pushed=_pushed(step), **asdict(self))


def _pushed(step: Step) -> Float[Tensor, " P"]:
    """What momentum adds to the gradient, beta times the buffer before the step."""
    if step.state.threshold.formula not in HEAVY_BALL:
        raise UndefinedError(
            "the momentum form of batch sharpness is known for torch.optim.SGD with heavy-ball "
            "momentum, one learning rate, and none of nesterov, maximize, weight_decay and "
            "dampening; UpdateCurvature on the batch of the step answers for others"
        )
    if step.gradient is None:
        raise UndefinedError(
            "the gradient that the optimiser was given is not known, as it computes it itself, in "
            "a closure; BatchSharpness needs none"
        )
    lost = torch.finfo(step.update.dtype).eps * step.before.theta.norm()  # in parameters' last bits
    if float(lost) > ROUNDING * float(step.update.norm()):
        raise UndefinedError(
            "the momentum is not known, because more than a hundredth of the update may be the "
            "rounding of the parameters; BatchSharpness needs none"
        )
    return -step.update / one_lr(step) - step.gradient

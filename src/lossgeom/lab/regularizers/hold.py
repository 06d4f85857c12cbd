"""An intervention: hold a quantity on a curve while training goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from lossgeom.lab.regularizers._penalty import add
from lossgeom.lab.training import Quantity, Regularizer
from lossgeom.messages.checks import check_number


class NotPositiveError(ValueError):
    """A quantity to hold, or its curve, is not positive, and has no logarithm."""


def hold(
    metric: Quantity,
    curve: tuple[Sequence[int], Sequence[float]],
    *,
    strength: float = 0.02,
    factor: Callable[[int], float] = lambda step: 1.0,  # noqa: ARG005
) -> Regularizer:
    r"""Add :math:`s (\log q(\theta) - \log(c_t \phi_t))^2`, which draws q to a recorded curve.

    Record the curve in a free run; hold all quantities on theirs for a control, and then move one
    of them by a factor while the others are held. What changes is what that one does, which no
    regulariser that moves all of them can say.

    Args:
        metric: a positive quantity, such as ``JacobianNorm()`` or ``WarmSharpness()``.
        curve: steps and values of that very quantity, as ``record.series(name)`` gives them;
            straight lines in between, and the first and last value outside. ``JacobianNorm()`` is
            the square of ``lossgeom.metrics.SobolevSeminorm()``, and ``WarmSharpness()`` follows
            ``lossgeom.metrics.Sharpness()``; both of a problem with the data and the mode of
            training. Where a negative eigenvalue is the largest in size, it finds that one.
        strength: s.
        factor: from the step to :math:`\phi_t`, such as ``ramp(0.4, steps)``.

    Raises:
        TypeError: if the factor is no function.
        ValueError: if the strength is not positive, or the curve has other steps than values or
            steps that do not increase; or, in training, if the factor is not positive.
        NotPositiveError: if a value of the curve is not positive and finite; or, in training, if
            the quantity is not positive.

    >>> from lossgeom.lab.regularizers import JacobianNorm
    >>> from lossgeom.losses import as_loss
    >>> from lossgeom.lab.training import Objective
    >>> import torch
    >>> data = [(torch.zeros(1, 2), torch.zeros(1, 2))]
    >>> plain = Objective(torch.nn.Identity(), as_loss("squared_error"), lambda _: data)
    >>> held = hold(JacobianNorm(probes=None), ([0, 10], [4.0, 2.0]), strength=1.0)(plain)
    >>> [round(held.at(step)[0].item(), 4) for step in (0, 10)]  # |J|^2 = 2: log(2)^2, 0
    [0.4805, 0.0]
    """
    steps, values = curve
    check_number("strength", strength, 0)
    if not callable(factor):
        raise TypeError(
            "expected a factor that is a function of the step, such as ramp(0.4, 200), got "
            f"{factor!r}"
        )
    increasing = all(a < b for a, b in pairwise(steps))
    positive = all(0 < value < math.inf for value in values)
    if not steps or len(steps) != len(values) or not increasing or not positive:
        raise (ValueError if positive else NotPositiveError)(
            "expected a curve of increasing steps and a positive value at each, got "
            f"{len(steps)} steps and {len(values)} values, {list(values)[:5]} first"
        )

    def weigh(mean: Tensor, step: int) -> Tensor:
        if mean <= 0:
            raise NotPositiveError(
                f"expected a positive quantity to hold, got {mean.item()} at {step} of "
                f"{type(metric).__name__}; hold one that stays positive"
            )
        target = float(np.interp(step, steps, values)) * factor(step)
        if not target > 0:
            raise ValueError(f"expected a factor > 0 on the curve, got {factor(step)} at {step}")
        return strength * (mean / target).log().square()

    return add(metric, weigh)

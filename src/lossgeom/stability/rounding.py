"""How finely a loss can be told apart from another one near by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.problem import Problem, checked_problem

SAMPLES = 4


def loss_rounding(problem: Problem, *, seed: int = 0) -> float:
    r"""The standard deviation of rounding in the difference of two losses near a point.

    .. math:: \sqrt{\tfrac14 \sum_{k=1}^4 \big( L(\theta \odot (1 + \epsilon\, u_k))
        - L(\theta) \big)^2}

    with :math:`u_k` uniform in [-1/2, 1/2] and :math:`\epsilon` the spacing of numbers around 1 in
    the type that the model is run in, which is that of autocast where there is one: parameters that
    are the same to that type. It is never less than :math:`\epsilon |L|` in the type of the
    parameters. A difference of losses of a few times this, or less, says nothing.

    Cost: 5 forward passes, once at a point and seed.

    Args:
        problem: the loss and where to take it.
        seed: of the directions.

    Returns:
        The deviation, in the unit of the loss.

    Raises:
        NonFiniteError: where the loss is NaN or infinite.

    Source: after Moré and Wild, Estimating computational noise (2011), which takes differences of
    higher order along one line.

    >>> from torch import nn
    >>> model = nn.Linear(1, 1)
    >>> data = [(torch.ones(8, 1), torch.zeros(8, 1))]
    >>> loss_rounding(Problem(model, "squared_error", data)) < 1e-5
    True
    """
    return checked_problem(problem).cached(_measured, seed)


def _measured(problem: Problem, seed: int) -> float:
    theta, here = problem.theta, problem.loss()
    spacing, generator = torch.finfo(problem.autocast or theta.dtype).eps, random_numbers(seed)
    losses = [problem.at(nearby(theta, spacing, generator)).loss() for _ in range(SAMPLES)]
    return deviation(here, losses, torch.finfo(theta.dtype).eps)


def nearby(theta: Tensor, spacing: float, generator: torch.Generator) -> Tensor:
    """Parameters that are the same up to half of a relative spacing."""
    u = torch.rand(theta.shape, generator=generator) - 0.5
    return theta + spacing * u.to(theta) * theta


def deviation(here: float, losses: Sequence[float], spacing: float) -> float:
    """The standard deviation of losses from one, of which less than a spacing is not believed."""
    total = sum((loss - here) ** 2 for loss in losses)
    return max(math.sqrt(total / len(losses)), spacing * abs(here))


def gradient_rounding(problem: Problem) -> float:
    """The length of what rounding may change in the gradient; costs one at other parameters."""
    here, theta = problem.cached(Problem.gradient).double(), problem.theta
    spacing = torch.finfo(problem.autocast or theta.dtype).eps
    there = problem.at(nearby(theta, spacing, random_numbers(0))).gradient().double()
    return max(float((there - here).norm()), torch.finfo(theta.dtype).eps * float(here.norm()))

"""How much the loss rises near by, at worst."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg import random_numbers
from lossgeom.lipschitz.lipschitz import check_radius
from lossgeom.messages.checks import check_at_least
from lossgeom.problem import Problem, checked_problem
from lossgeom.stability.along import gradient_at


def worst_case_sharpness_lower(
    problem: Problem,
    radius: float = 0.05,
    *,
    adaptive: bool = False,
    steps: int = 10,
    restarts: int = 1,
    seed: int = 0,
) -> Estimate:
    r"""A lower estimate of how much the loss rises in a ball round the parameters, at worst.

    .. math:: \max_{|\delta| \le \rho} L(\theta + \delta) - L(\theta), \qquad
        \max_{|\delta / |\theta|| \le \rho} L(\theta + \delta) - L(\theta)

    The second, adaptive one measures each parameter relative to its own size, and is the same for
    networks that differ by a rescaling of ReLU layers (Dinh et al., arXiv:1703.04933); a parameter
    of zero stays where it is. At a minimum with a small radius they are :math:`\rho^2 / 2` times
    the sharpness and the :func:`adaptive_sharpness`.

    The ascent puts delta on the sphere along the gradient at the point that it has reached, from
    the gradient's own direction (the step of SAM) and from random ones, and keeps the best. On a
    convex quadratic it never goes down. It is a lower estimate: the truth may be more.

    What it cannot tell: an edge. No threshold of an optimiser is for it.

    Cost: ``(1 + restarts) * steps`` gradients and as many forward passes.

    Args:
        problem: the loss and where to take it.
        radius: rho, in the unit of the parameters, or without one if adaptive.
        adaptive: whether parameters are measured relative to their size.
        steps: gradients from each start.
        restarts: starts in random directions.
        seed: of these.

    Returns:
        The rise, at least 0, in the unit of the loss.

    Raises:
        ValueError: for a radius or a number out of range.
        NonFiniteError: where the loss is NaN or infinite, also in the ball.

    Source: Keskar et al., arXiv:1609.04836; Foret et al., arXiv:2010.01412; Kwon et al.,
    arXiv:2102.11600; Andriushchenko et al., arXiv:2302.07011.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(worst_case_sharpness_lower(problem, 0.1).value, 4)  # 4 times 0.01 / 2
    0.02
    """
    theta, here = checked_problem(problem).theta, problem.loss()
    check_radius(radius)
    check_at_least(1, steps=steps)
    check_at_least(0, restarts=restarts, seed=seed)
    scale = theta.abs() if adaptive else torch.ones_like(theta)
    best = 0.0
    for direction in _starts(gradient_at(problem) * scale, restarts, seed):
        for _ in range(steps):
            length = torch.linalg.vector_norm(direction)
            if not length > 0:  # nothing goes up from here
                break
            there = problem.at(theta + radius * scale * direction / length)
            best = max(best, there.loss() - here)
            direction = there.gradient() * scale
    return Estimate(best)


def _starts(
    gradient: Float[Tensor, " P"], restarts: int, seed: int
) -> Iterator[Float[Tensor, " P"]]:
    yield gradient
    generator = random_numbers(seed)
    for _ in range(restarts):
        yield torch.randn(gradient.shape, generator=generator, dtype=torch.float64).to(gradient)

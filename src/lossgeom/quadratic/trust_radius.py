"""The radius in which a Taylor model is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_number
from lossgeom.quadratic.network_model import TrueNetwork
from lossgeom.quadratic.point import slope
from lossgeom.quadratic.taylor import TaylorModel
from lossgeom.quadratic.taylor_error import taylor_error

RADII = tuple(10 ** (i / 10) for i in range(-40, 11))  # times the norm of the parameters
WIDTH = 1e-3  # relative, of the bracket of a radius


@dataclass(frozen=True)
class TrustRadius:
    """How far along a direction a Taylor model is right, as a bracket.

    Attributes:
        radius: the error is within the tolerance here and at all smaller radii that were tried; 0
            where it is not even at the smallest.
        beyond: the smallest radius tried at which it is not; infinite where there is none.
    """

    radius: float
    beyond: float


def trust_radius(
    model: TaylorModel,
    tolerance: float = 0.1,
    *,
    direction: Float[Tensor, " P"] | None = None,
    radii: Sequence[float] | None = None,
) -> TrustRadius:
    r"""The radius up to which a Taylor model is right along a direction.

    The largest r such that the relative error of :func:`taylor_error` at d = r u, with the unit
    vector u along the direction, is at most the tolerance for all radii up to r: the first crossing
    on a grid, made finer by bisection. A crossing and return between two radii of the grid goes
    unseen.

    Cost: for each radius up to the crossing, and ten more, an evaluation of network and model.

    Args:
        model: linear or quadratic.
        tolerance: of the relative error.
        direction: any length but 0; the negative gradient by default. A random one is
            ``torch.randn(P, generator=...)``.
        radii: an increasing grid, in the unit of the parameters; by default ten per decade from
            1e-4 to 10 times the norm of the parameters.

    Returns:
        A radius and the next one beyond, at which the error is too large, NaN or infinite; they are
        within 0.1 %, unless one of them is 0 or infinite, for an end of the grid.

    Raises:
        ValueError: if the tolerance is not positive, the direction has another shape or no finite
            length above 0, or radii are not positive and increasing.

    >>> from torch import nn
    >>> from lossgeom import Problem
    >>> from lossgeom.quadratic import taylor
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = [nn.init.ones_(p) for p in model.parameters()]
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.full((1, 1), 9.0))])
    >>> found = trust_radius(taylor(problem, order=1), 0.2)  # (a^2 / 2) / (a^2 / 2 + sqrt(2) a)
    >>> round(found.radius, 2), round(2 * 2**0.5 * 0.25, 2)
    (0.71, 0.71)
    >>> trust_radius(taylor(problem, order=2)).beyond
    inf
    """
    check_number("tolerance", tolerance, 0)
    error = taylor_error(model)
    true = TrueNetwork(model.problem, model.residuals)
    u = _unit(model, direction)

    def right(r: float) -> bool:
        return bool(error(true.at(r * u[None])) <= tolerance)

    with torch.no_grad():
        return _first_crossing(right, _grid(model, radii))


def _first_crossing(right: Callable[[float], bool], grid: Sequence[float]) -> TrustRadius:
    below, above = 0.0, math.inf
    for r in grid:
        if not right(r):
            above = r
            break
        below = r
    while 0 < below < above < math.inf and above > below * (1 + WIDTH):
        middle = math.sqrt(below * above)
        below, above = (middle, above) if right(middle) else (below, middle)
    return TrustRadius(below, above)


def _unit(model: TaylorModel, direction: Tensor | None) -> Float[Tensor, " P"]:
    theta = model.problem.theta
    if direction is None:
        here = model.at(model.origin)
        direction = -here.pullback(slope(model.loss, here.z))[0]
    if direction.shape != theta.shape:
        raise ValueError(
            f"expected a direction of shape {tuple(theta.shape)}, got {tuple(direction.shape)}"
        )
    length = torch.linalg.vector_norm(direction).item()
    if not 0 < length < math.inf:
        raise ValueError(
            f"expected a direction of finite length above 0, got {length}; at a point without a "
            "gradient give another direction"
        )
    unit: Tensor = direction.to(theta) / length
    return unit


def _grid(model: TaylorModel, radii: Sequence[float] | None) -> list[float]:
    if radii is None:
        size = torch.linalg.vector_norm(model.problem.theta).item() or 1.0
        return [size * radius for radius in RADII]
    grid = list(radii)
    if not grid or not all(a < b < math.inf for a, b in pairwise([0.0, *grid])):
        raise ValueError(f"expected radii above 0 that increase, got {grid}")
    return grid

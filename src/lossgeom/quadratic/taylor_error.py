"""How far a network is from its Taylor models, along its own path."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.problem import Problem
from lossgeom.quadratic.descent import Descent
from lossgeom.quadratic.network_model import network, network_point
from lossgeom.quadratic.parameter_descent import descend_parameters
from lossgeom.quadratic.point import Point
from lossgeom.quadratic.taylor import TaylorModel, taylor
from lossgeom.quadratic.trajectory import Observable, Trajectory


def taylor_error(model: TaylorModel) -> Observable:
    r"""Make an observable of how far a Taylor model is from its network, along the latter's path.

    .. math:: \|z_T(d) - z(d)\| \,/\, \|z(d) - z(0)\|

    which falls as :math:`\|d\|` for order 1 and as :math:`\|d\|^2` for order 2, down to rounding.
    It is 0 where both are equal, as at the start.

    Cost: an evaluation of the model.

    Args:
        model: of the network whose points are observed.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = [nn.init.ones_(p) for p in model.parameters()]
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.zeros(1, 1))])
    >>> there = network(problem).at(torch.tensor([[0.5, 0.5]]))
    >>> taylor_error(taylor(problem, order=1))(there)  # 2 in place of 2.25, from 1 on
    tensor([0.2000])
    """

    def error(point: Point) -> Float[Tensor, " 1"]:
        z = point.z
        apart = torch.linalg.vector_norm(model.at(network_point(point).d[None]).z - z, dim=1)
        moved = torch.linalg.vector_norm(z - model.start, dim=1)
        return torch.where(apart == 0, 0.0, apart / moved)

    return error


def distance(point: Point) -> Float[Tensor, " 1"]:
    """Observe the norm of d, how far the parameters are from the start."""
    length: Tensor = torch.linalg.vector_norm(network_point(point).d)
    return length[None]


@dataclass(frozen=True, eq=False)
class TaylorComparison:
    """Descents of a network and of its Taylor models from the same start.

    Attributes:
        network: with ``"linear_error"`` and ``"quadratic_error"``, see :func:`taylor_error`, and
            ``"distance"`` from the start, recorded along the network's own path.
        linear: the model of order 1.
        quadratic: the model of order 2.
    """

    network: Trajectory
    linear: Trajectory
    quadratic: Trajectory


def compare_with_taylor(problem: Problem, descent: Descent) -> TaylorComparison:
    """Descend a network and its linear and quadratic model from the same start.

    Cost: for each step the gradient of the network and 5 to 11 more for the models; for each record
    their eigenvalues, and an evaluation of each model.

    Args:
        problem: model, loss and data, at the start.
        descent: of all three.

    Returns:
        Three trajectories. Runs that diverge say so in theirs.

    Raises:
        DerivativeError, NonFiniteError, TypeError: as :func:`taylor`.

    >>> from torch import nn
    >>> data = [(torch.ones(1, 1), torch.ones(1, 1))]
    >>> problem = Problem(nn.Linear(1, 1, bias=False), "squared_error", data)
    >>> found = compare_with_taylor(problem, Descent(steps=10, learning_rate=0.5, every=5))
    >>> found.network.recorded["linear_error"].max().item() < 1e-5  # it is linear
    True
    """
    true, linear, quadratic = network(problem), taylor(problem, 1), taylor(problem, 2)
    errors = {"linear_error": taylor_error(linear), "quadratic_error": taylor_error(quadratic)}
    watched = replace(descent, observe={**descent.observe, **errors, "distance": distance})
    return TaylorComparison(
        descend_parameters(true, watched),
        descend_parameters(linear, descent),
        descend_parameters(quadratic, descent),
    )

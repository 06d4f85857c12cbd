"""Networks as models that the loops of this package train."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian, jacobian_of
from lossgeom.batches import Batch
from lossgeom.linalg import EigenPairs, LinearOperator, top_eigenpairs
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.quadratic._outputs import Residuals
from lossgeom.quadratic.model import Model
from lossgeom.quadratic.point import Expansion, Loss, Point
from lossgeom.quadratic.second_derivative import Rows
from lossgeom.trust.trial import guard

TOL = 1e-4  # of eigenpairs: an eigenvalue is then good to about eight digits


@dataclass(frozen=True, eq=False)
class NetworkModel(Model):
    r"""What a torch model puts out on all data, as a model with one run; or a Taylor model of it.

    Parameters d count from those of the problem, :math:`\theta_0`. For squared errors z is the
    residual at the scale at which the loss is :math:`\tfrac12 \|z\|^2`, such as
    :math:`(f - y) / \sqrt N` for ``"squared_error"``, so that :math:`J J^\top` has the eigenvalues
    of the Gauss-Newton matrix. For any other loss z are the outputs themselves.

    Attributes:
        problem: model, loss and data.
        residuals: how z is made of the outputs.
    """

    problem: Problem
    residuals: Residuals

    __repr__ = short

    @property
    def loss(self) -> Loss:
        """A function from z to the loss of the problem."""
        return self.residuals.loss

    @property
    def runs(self) -> int:
        return 1

    @property
    def bytes_per_run(self) -> int:
        return 4 * self.problem.theta.numel() * self.problem.theta.itemsize

    @property
    def origin(self) -> Float[Tensor, "1 P"]:
        return torch.zeros_like(self.problem.theta)[None]

    @property
    def start(self) -> Float[Tensor, "1 D"]:
        """The residuals z where d = 0."""
        return self.residuals.z(self.residuals.outputs)

    def rows(self, index: Rows) -> NetworkModel:  # noqa: ARG002
        return self  # the only run there is; ``at`` is called without one when it has ended

    def at(self, theta: Float[Tensor, "R P"]) -> Point:
        """The point of the run at parameters (1, P), counted from those of the problem.

        Raises:
            ValueError: for several rows.
        """
        if len(theta) > 1:
            raise ValueError(f"expected parameters (1, P), of one run; got {tuple(theta.shape)}")
        if not len(theta):
            D, P = self.start.shape[1], theta.shape[1]
            return Expansion(theta.new_empty(0, D), theta.new_empty(0, D, P))
        return self.expand(theta[0])

    @abstractmethod
    def expand(self, d: Float[Tensor, " P"]) -> NetworkPoint:
        """The point at parameters d."""

    def tangent(self, jacobian: LinearOperator) -> Tangent:
        """Make the Jacobian of z of that of the outputs."""
        s = self.residuals.scale
        return Tangent(jacobian if s == 1 else s * jacobian)


@dataclass(frozen=True, eq=False)
class Tangent:
    """What z does near a point, to first order.

    Attributes:
        jacobian: J of z, D x P.
    """

    jacobian: LinearOperator

    __repr__ = short

    @cached_property
    def top(self) -> EigenPairs:
        """The top eigenpair of J J^T, by Lanczos iteration, once."""
        return top_eigenpairs(self.jacobian @ self.jacobian.T, tol=TOL)


@dataclass(frozen=True, eq=False)
class NetworkPoint(Point):
    """A point of a network or of its Taylor models.

    Attributes:
        z: residuals, or outputs.
        d: parameters, from the problem's on.
        tangent: the Jacobian of z, and its top mode.
    """

    z: Float[Tensor, "1 D"]
    d: Float[Tensor, " P"]
    tangent: Tangent

    __repr__ = short

    def pullback(self, u: Float[Tensor, "1 D"]) -> Float[Tensor, "1 P"]:
        return (self.tangent.jacobian.T @ u[0])[None]

    def largest_ntk_eigenvalues(self) -> Float[Tensor, " 1"]:
        """The largest eigenvalue of J J^T, by Lanczos iteration."""
        return self.tangent.top.values


def network_point(point: Point) -> NetworkPoint:
    """Return the point if it is one of a network or of its Taylor models."""
    if not isinstance(point, NetworkPoint):
        raise TypeError(
            "expected to observe a network or a Taylor model of one, got a "
            f"{type(point).__name__}; make them with network(problem) and taylor(problem)"
        )
    return point


@dataclass(frozen=True, eq=False, repr=False)
class TrueNetwork(NetworkModel):
    """The network itself, not a Taylor model of it; see :func:`network`."""

    def expand(self, d: Float[Tensor, " P"]) -> NetworkPoint:
        there = self.problem.at(self.problem.theta + d)
        leaf = there.leaf()

        def graph(batch: Batch) -> BatchJacobian:
            return BatchJacobian(there.outputs(leaf, batch), leaf)

        graphs = there.over_batches(graph)
        z = self.residuals.z([graph.outputs.detach() for graph in graphs])
        return NetworkPoint(z, d, self.tangent(jacobian_of(graphs)))


def network(problem: Problem) -> TrueNetwork:
    r"""A torch model on all its data, to be trained by the loops of this package.

    .. math:: z(d) = s\,(f(\theta_0 + d) - y)

    It is trained on the same numbers as its Taylor models, see :func:`taylor`.

    Cost: a step takes a gradient; an eigenvalue 10 to 35. The graph of all data is in memory at a
    time.

    Args:
        problem: model, loss and data; ``Problem(..., dtype=torch.float64)`` is in float64.

    Raises:
        DerivativeError: if derivatives disagree with finite differences.
        NonFiniteError: if the loss is NaN or infinite at the start.
        TypeError: for anything but a problem.

    >>> from torch import nn
    >>> from lossgeom.quadratic import Descent, descend_parameters
    >>> data = [(torch.ones(1, 1), torch.ones(1, 1))]
    >>> problem = Problem(nn.Linear(1, 1, bias=False), "squared_error", data, dtype=torch.float64)
    >>> model = network(problem)
    >>> trajectory = descend_parameters(model, Descent(20, 0.5))
    >>> round((problem.theta + trajectory.final["theta"]).item(), 4), trajectory.ntk[-1].item()
    (1.0, 1.0)
    """
    guard(checked_problem(problem), problem.first_batch())
    return TrueNetwork(problem, Residuals.of(problem))

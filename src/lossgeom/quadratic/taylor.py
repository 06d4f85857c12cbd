"""A network and its Taylor models, as models that the same loops train."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature import NTK, ParameterJacobian
from lossgeom.diagnosis import guard
from lossgeom.linalg import LinearOperator, top_eigenpairs
from lossgeom.linalg.operator import MatrixFree
from lossgeom.measuring import measuring
from lossgeom.problem import Problem, checked_problem
from lossgeom.quadratic._outputs import Residuals
from lossgeom.quadratic._second_along import Along, way_for
from lossgeom.quadratic.model import Model
from lossgeom.quadratic.point import Expansion, Loss, Point
from lossgeom.quadratic.second_derivative import Rows

Order = Literal[1, 2]
ORDERS: tuple[Order, ...] = (1, 2)


@dataclass(frozen=True, eq=False)
class NetworkModel(Model):
    r"""What a torch model puts out on all data, as a model with one run; or a Taylor model of it.

    Parameters count from those of the problem, :math:`\theta_0`. For squared errors z is the
    residual in units in which the loss is :math:`\tfrac12 \|z\|^2`, such as
    :math:`(f - y) / \sqrt N` for ``"squared_error"``, so that :math:`J J^\top` has the eigenvalues
    of the Gauss-Newton matrix. For any other loss z are the outputs, and :attr:`loss` goes into
    :class:`Descent`.

    Attributes:
        problem: model, loss and data.
        residuals: how z is made of the outputs.
    """

    problem: Problem
    residuals: Residuals

    @property
    def loss(self) -> Loss:
        """From z to the loss of the problem."""
        return self.residuals.loss

    @property
    def runs(self) -> int:  # noqa: D102
        return 1

    @property
    def bytes_per_run(self) -> int:  # noqa: D102
        return 4 * self.problem.theta.numel() * self.problem.theta.itemsize

    @property
    def origin(self) -> Float[Tensor, "1 P"]:  # noqa: D102
        return torch.zeros_like(self.problem.theta)[None]

    def rows(self, index: Rows) -> NetworkModel:  # noqa: D102, ARG002
        return self  # the only run there is; ``at`` is called without one when it has ended

    def at(self, theta: Float[Tensor, "R P"]) -> Point:  # noqa: D102
        if not len(theta):
            D = sum(f.numel() for f in self.residuals.outputs)
            return Expansion(theta.new_empty(0, D), theta.new_empty(0, D, 0))
        return self.expand(theta[0])

    @abstractmethod
    def expand(self, d: Float[Tensor, " P"]) -> NetworkPoint:
        """What is known at parameters."""


@dataclass(frozen=True, eq=False)
class NetworkPoint(Point):
    """Where the run is.

    Attributes:
        residuals: how z is made of the outputs.
        outputs: batch by batch.
        d: parameters, from the problem's on.
    """

    residuals: Residuals
    outputs: tuple[Tensor, ...]
    d: Float[Tensor, " P"]

    @cached_property
    def z(self) -> Float[Tensor, "1 D"]:  # type: ignore[override]  # noqa: D102
        return self.residuals.z(self.outputs)

    def pullback(self, u: Float[Tensor, "1 D"]) -> Float[Tensor, "1 P"]:  # noqa: D102
        with measuring(self.d.device):
            return self.pull(self.residuals.split(self.residuals.scale * u[0]))[None]

    def largest_ntk_eigenvalues(self) -> Float[Tensor, " 1"]:
        """By Lanczos iteration."""
        return self.residuals.scale**2 * top_eigenpairs(self.kernel()).values

    @abstractmethod
    def pull(self, u: list[Tensor]) -> Float[Tensor, " P"]:
        """J^T u, for u in the shapes of the outputs."""

    @abstractmethod
    def kernel(self) -> LinearOperator:
        """J J^T of the outputs."""


class TrueNetwork(NetworkModel):
    """The network itself, not a Taylor model of it; see :func:`network`."""

    def expand(self, d: Float[Tensor, " P"]) -> NetworkPoint:  # noqa: D102
        there = self.problem.at(self.problem.theta + d)
        leaf = there.leaf()
        outputs = there.over_batches(lambda batch: there.outputs(leaf, batch))
        return _TruePoint(self.residuals, tuple(outputs), d, there, leaf)


@dataclass(frozen=True, eq=False)
class _TruePoint(NetworkPoint):
    problem: Problem
    leaf: Tensor

    @cached_property
    def z(self) -> Float[Tensor, "1 D"]:  # type: ignore[override]
        return self.residuals.z(self.outputs).detach()

    def pull(self, u: list[Tensor]) -> Float[Tensor, " P"]:
        pairs = [(f, part) for f, part in zip(self.outputs, u, strict=True) if f.requires_grad]
        if not pairs:
            return torch.zeros_like(self.leaf)
        outputs, parts = zip(*pairs, strict=True)
        (pulled,) = torch.autograd.grad(
            outputs, self.leaf, parts, retain_graph=True, materialize_grads=True
        )
        return pulled

    def kernel(self) -> LinearOperator:
        return NTK(self.problem)


@dataclass(frozen=True, eq=False)
class TaylorModel(NetworkModel):
    """A Taylor model of a network; see :func:`taylor`.

    Attributes:
        order: 1 for the linearised, 2 for the quadratic model.
    """

    order: Order

    @cached_property
    def jacobian(self) -> ParameterJacobian:
        """J of the outputs at the start."""
        return ParameterJacobian(self.problem)

    @cached_property
    def kernel(self) -> LinearOperator:
        """J J^T of the outputs at the start."""
        return NTK(self.problem)

    @cached_property
    def way(self) -> type[Along]:
        """To derivatives along directions."""
        return way_for(self.problem)

    def expand(self, d: Float[Tensor, " P"]) -> NetworkPoint:  # noqa: D102
        return self._linear(d) if self.order == 1 else self._quadratic(d)

    def _linear(self, d: Float[Tensor, " P"]) -> NetworkPoint:
        along = self.residuals.split(self.jacobian @ d)
        outputs = (f + part for f, part in zip(self.residuals.outputs, along, strict=True))
        return _LinearPoint(self.residuals, tuple(outputs), d, self)

    def _quadratic(self, d: Float[Tensor, " P"]) -> NetworkPoint:
        def expanded(batch: Batch) -> tuple[Along, Tensor]:
            along = self.way.at(self.problem, batch, d)
            return along, (along.outputs + along.first + along.second(d) / 2).detach()

        along, outputs = zip(*self.problem.over_batches(expanded), strict=True)
        return _QuadraticPoint(self.residuals, outputs, d, self, along)


@dataclass(frozen=True, eq=False)
class _LinearPoint(NetworkPoint):
    model: TaylorModel

    def pull(self, u: list[Tensor]) -> Float[Tensor, " P"]:
        return self.model.jacobian.T @ torch.cat([part.reshape(-1) for part in u])

    def kernel(self) -> LinearOperator:
        return self.model.kernel


@dataclass(frozen=True, eq=False)
class _QuadraticPoint(NetworkPoint):
    model: TaylorModel
    along: tuple[Along, ...]

    def pull(self, u: list[Tensor]) -> Float[Tensor, " P"]:
        pulled = [along.pull(part) for along, part in zip(self.along, u, strict=True)]
        return torch.stack(pulled).sum(0)

    def kernel(self) -> LinearOperator:
        D = self.z.shape[1]
        K = MatrixFree((D, D), self.z.dtype, self.z.device, self._multiply, lambda: K)
        return K

    def _multiply(self, U: Float[Tensor, "D k"]) -> Float[Tensor, "D k"]:
        """J J^T U with J = J_0 + Q(d, .)."""
        with measuring(self.d.device):
            pulled = [self.pull(self.residuals.split(u)) for u in U.T]
            second = [torch.cat([a.second(v).reshape(-1) for a in self.along]) for v in pulled]
        return self.model.jacobian @ torch.stack(pulled, 1) + torch.stack(second, 1)


def network(problem: Problem) -> TrueNetwork:
    r"""A torch model on all its data, to be trained by the loops of this package.

    .. math:: z(d) = s\,(f(\theta_0 + d) - y)

    It is trained on the same numbers as its Taylor models, see :func:`taylor`.

    Cost: a step takes a gradient; an eigenvalue some ten products with J and J^T. The graph of all
    data is in memory at a time.

    Args:
        problem: model, loss and data; float64 is ``Problem(..., dtype=torch.float64)``.

    Raises:
        DerivativeError: if derivatives disagree with finite differences.

    >>> from torch import nn
    >>> from lossgeom.quadratic import Descent, descend_parameters
    >>> data = [(torch.ones(1, 1), torch.ones(1, 1))]
    >>> problem = Problem(nn.Linear(1, 1, bias=False), "squared_error", data, dtype=torch.float64)
    >>> model = network(problem)
    >>> trajectory = descend_parameters(model, Descent(20, 0.5, loss=model.loss))
    >>> round((problem.theta + trajectory.final["theta"]).item(), 4), trajectory.ntk[-1].item()
    (1.0, 1.0)
    """
    guard(checked_problem(problem), problem.first_batch())
    return TrueNetwork(problem, Residuals.of(problem))


def taylor(problem: Problem, order: Order = 2) -> TaylorModel:
    r"""The linearised or the quadratic model of a torch model at its parameters.

    .. math:: z(d) = s \, \big( f(\theta_0) + J d + \tfrac12 Q(d, d) - y \big), \qquad
        J = \partial_\theta f, \quad Q = \partial^2_\theta f

    without the last term for order 1. Q is never formed: J d comes from forward mode, the gradient
    from reverse over forward mode, and Q(d, d) from forward over forward mode where that agrees
    with finite differences, and from reverse mode otherwise (PyTorch's nested forward mode is wrong
    for some norm layers).

    Cost: of order 1, a step takes one product with J and one with J^T, whose graphs are kept; of
    order 2 some 5 to 8 gradients, with the graphs of all data in memory.

    Args:
        problem: model, loss and data, at the point to expand at.
        order: 1 or 2.

    Returns:
        A model for :func:`descend_parameters` and :func:`gradient_flow`, with ``loss`` for a
        :class:`Descent`.

    Raises:
        ValueError: for another order.
        DerivativeError: if derivatives disagree with finite differences by every way.

    Source: Agarwala, Pedregosa and Pennington, arXiv:2210.04860, for comparing networks with their
    quadratic models; Lee et al., Wide neural networks of any depth evolve as linear models,
    arXiv:1902.06720, for order 1.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = [nn.init.ones_(p) for p in model.parameters()]
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.zeros(1, 1))])
    >>> d = torch.tensor([[0.5, 0.5]])  # 1.5 * 1.5 is 2.25
    >>> taylor(problem, order=1).at(d).z, taylor(problem, order=2).at(d).z
    (tensor([[2.]]), tensor([[2.2500]]))
    """
    if order not in ORDERS:
        raise ValueError(f"expected order to be one of {ORDERS}, got {order!r}")
    guard(checked_problem(problem), problem.first_batch())
    return TaylorModel(problem, Residuals.of(problem), order)

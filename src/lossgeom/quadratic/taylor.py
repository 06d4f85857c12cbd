"""Taylor models of a network, which the same loops train."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import jacobian_of
from lossgeom.curvature import ParameterJacobian
from lossgeom.messages.wording import one_of
from lossgeom.problem import Problem, checked_problem
from lossgeom.quadratic._outputs import Residuals
from lossgeom.quadratic._second_along import way_for
from lossgeom.quadratic.network_model import NetworkModel, NetworkPoint, Tangent
from lossgeom.trust.trial import guard

Order = Literal[1, 2]
ORDERS: tuple[Order, ...] = (1, 2)


@dataclass(frozen=True, eq=False, repr=False)
class TaylorModel(NetworkModel):
    """A Taylor model of a network; see :func:`taylor`.

    Attributes:
        order: 1 for the linearised, 2 for the quadratic model.
    """

    order: Order

    def expand(self, d: Float[Tensor, " P"]) -> NetworkPoint:
        if self.order == 1:
            z = self.start + (self._tangent.jacobian @ d)[None]
            return NetworkPoint(z, d, self._tangent)
        way = way_for(self.problem)
        expanded = self.problem.over_batches(lambda batch: way(self.problem, batch, d))
        outputs, jacobians = zip(*expanded, strict=True)
        return NetworkPoint(self.residuals.z(outputs), d, self.tangent(jacobian_of(jacobians)))

    @cached_property
    def _tangent(self) -> Tangent:
        """The Jacobian at the start, whose top mode is found once for a linear model."""
        return self.tangent(ParameterJacobian(self.problem))


def taylor(problem: Problem, order: Order = 2) -> TaylorModel:
    r"""The linearised or the quadratic model of a torch model at its parameters.

    .. math:: z(d) = s \, \big( f(\theta_0) + J d + \tfrac12 Q(d, d) - y \big), \qquad
        J = \partial_\theta f, \quad Q = \partial^2_\theta f

    without the last term for order 1. Q is never formed: f, J d and Q(d, d) come from one pass in
    nested forward mode, and the gradient from reverse mode through f + J d, where that agrees with
    finite differences. Elsewhere all comes from reverse mode: forward mode in PyTorch,
    differentiated again in either mode, is wrong through some norm layers.

    The data of the problem decide what z is; its loss decides the scale s, and what
    :class:`Descent` goes down. In train mode the statistics of
    BatchNorm are functions of the parameters and expanded, too.

    Cost: a step of order 1 takes one gradient, with graphs that are kept, and up to 2 for
    convolutional networks; of order 2 about 4, 6 for convolutional networks, and 8 to 9 by reverse
    mode alone. An eigenvalue of order 1 is computed once; one of order 2 takes 30 to 110. The
    graphs of all data are in memory at a time.

    Args:
        problem: model, loss and data, at the point to expand at. Made with ``check=False``, it is
            expanded by reverse mode alone, and nothing is compared with finite differences.
        order: 1 or 2.

    Returns:
        A model for :func:`descend_parameters` and :func:`gradient_flow`.

    Raises:
        ValueError: for another order.
        DerivativeError: if derivatives disagree with finite differences; of order 2 at the first
            evaluation, if they do by every way.
        NonFiniteError: if the loss is NaN or infinite at the start.
        TypeError: for anything but a problem.

    Source: Agarwala, Pedregosa and Pennington, arXiv:2210.04860, for comparing networks with their
    quadratic models; Lee et al., Wide neural networks of any depth evolve as linear models under
    gradient descent, arXiv:1902.06720, for order 1.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = [nn.init.ones_(p) for p in model.parameters()]
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.zeros(1, 1))])
    >>> d = torch.tensor([[0.5, 0.5]])  # 1.5 * 1.5 is 2.25
    >>> taylor(problem, order=1).at(d).z, taylor(problem, order=2).at(d).z
    (tensor([[2.]]), tensor([[2.2500]]))
    """
    if order not in ORDERS:
        raise ValueError(f"expected order to be one of {one_of(ORDERS)}, got {order!r}")
    guard(checked_problem(problem), problem.first_batch())
    return TaylorModel(problem, Residuals.of(problem), order)

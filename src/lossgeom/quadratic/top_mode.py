"""The top mode of a network's tangent kernel, and the second derivative projected on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.linalg import frobenius_norm, random_numbers
from lossgeom.losses import Loss
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem
from lossgeom.quadratic._outputs import Residuals
from lossgeom.quadratic.network_model import network, network_point
from lossgeom.quadratic.point import Point
from lossgeom.quadratic.trajectory import Observable


@dataclass(frozen=True, eq=False)
class TopMode:
    r"""The top mode, of :math:`J J^\top v = \sigma^2 v` with J of z.

    Attributes:
        eigenvalue: :math:`\sigma^2`.
        v: (D,) the unit vector, with the sign that makes :math:`v^\top z` at least 0.
        w: (P,) :math:`J^\top v / \sigma`.
        residual: :math:`v^\top z`.
        curvature: :math:`w^\top (v \cdot Q)\, w`, the second derivative of :math:`v^\top z` along
            w.
        norm: of :math:`v \cdot Q = \sum_a v_a Q_a`, Frobenius.
        typical: the mean of the same for random unit vectors in place of v.
    """

    eigenvalue: float
    v: Float[Tensor, " D"]
    w: Float[Tensor, " P"]
    residual: float
    curvature: float
    norm: Estimate
    typical: Estimate

    __repr__ = short

    @property
    def ratio(self) -> Estimate:
        """How much larger the norm is than the typical one."""
        value = self.norm.value / self.typical.value if self.typical.value else math.nan
        errors = [
            (e.stderr or 0.0) / e.value if e.value else 0.0 for e in (self.norm, self.typical)
        ]
        return Estimate(value, abs(value) * math.hypot(*errors))


def top_mode(problem: Problem, *, directions: int = 8, matvecs: int = 50, seed: int = 0) -> TopMode:
    r"""The top mode of a network at a point, and how Q weighs on it.

    :math:`v \cdot Q` is the Hessian of the number :math:`v^\top z`. Q is never formed.

    Cost: 10 to 35 gradients for the mode, and ``matvecs * (1 + directions)`` products with a
    Hessian.

    Args:
        problem: model, loss and data.
        directions: random unit vectors for the typical norm, at least 2.
        matvecs: Hessian products for each norm, at least 2; with as many as parameters it is exact.
        seed: of the directions and of the probes of the norms.

    Returns:
        The mode and its numbers. Standard errors are those of random probes and, for the typical
        norm, of random directions.

    Raises:
        ValueError: for too few directions or products.
        DerivativeError, NonFiniteError, TypeError: as :func:`network`.

    Source: Agarwala, Pedregosa and Pennington, arXiv:2210.04860, who look at the projection of Q on
    the top mode of networks; the norms and the ratio as defined here are ours.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> _ = [nn.init.ones_(p) for p in model.parameters()]
    >>> mode = top_mode(Problem(model, "squared_error", [(torch.ones(1, 1), torch.zeros(1, 1))]))
    >>> round(mode.eigenvalue, 4), round(mode.curvature, 4), round(mode.ratio.value, 4)
    (2.0, 1.0, 1.0)
    """
    check_at_least(2, directions=directions, matvecs=matvecs)
    model = network(problem)
    with torch.no_grad():
        here = network_point(model.at(model.origin))
        v = _signed(here.tangent.top.vectors[:, 0], here.z[0])
        pulled = here.tangent.jacobian.T @ v
        w = pulled / torch.linalg.vector_norm(pulled)
        norm = partial(frobenius_norm, matvecs=matvecs, seed=seed)
        others = [norm(projected(problem, model.residuals, u)) for u in _units(v, directions, seed)]
        Q = projected(problem, model.residuals, v)
        return TopMode(
            here.tangent.top.values[0].item(), v, w, (v @ here.z[0]).item(),
            (w @ (Q @ w)).item(), norm(Q), _mean(others),
        )  # fmt: skip


def projected(problem: Problem, residuals: Residuals, v: Float[Tensor, " D"]) -> Hessian:
    """The second derivative of v.z, a P x P matrix."""
    parts = residuals.split(residuals.scale * v)

    def terms(outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        return (outputs * parts[batch.index].reshape(outputs.shape)).sum(), 1.0

    # whose derivatives are checked where those of the network's own loss are
    return Hessian(problem.with_loss(Loss("projected outputs", terms, average=False)))


def top_mode_residual(reference: Float[Tensor, " D"]) -> Observable:
    r"""Make an observable of :math:`v^\top z` with the top mode v of where the run is.

    v has no sign of its own: it gets the one that makes its product with the reference at least 0.

    Cost: none beside the largest eigenvalue of J J^T.

    Args:
        reference: such as the ``v`` of :func:`top_mode` at the start.

    >>> from torch import nn
    >>> data = [(torch.ones(1, 1), torch.ones(1, 1))]
    >>> model = network(Problem(nn.Linear(1, 1, bias=False), "squared_error", data))
    >>> there = model.at(2 - model.problem.theta[None])
    >>> [round(top_mode_residual(v)(there).item(), 4) for v in (torch.ones(1), -torch.ones(1))]
    [1.0, -1.0]
    """

    def observe(point: Point) -> Float[Tensor, " 1"]:
        return point.z @ _signed(network_point(point).tangent.top.vectors[:, 0], reference)

    return observe


def _signed(v: Float[Tensor, " D"], reference: Float[Tensor, " D"]) -> Float[Tensor, " D"]:
    return -v if (v @ reference).item() < 0 else v


def _units(like: Float[Tensor, " D"], count: int, seed: int) -> Iterator[Float[Tensor, " D"]]:
    generator = random_numbers(seed)
    for _ in range(count):
        u = torch.randn(len(like), generator=generator, dtype=torch.float64)
        yield (u / torch.linalg.vector_norm(u)).to(like)


def _mean(parts: list[Estimate]) -> Estimate:
    """The mean, whose spread is that of the directions and of the probes together."""
    values = torch.tensor([part.value for part in parts], dtype=torch.float64)
    stderr = values.std().item() / math.sqrt(len(parts))
    return Estimate(values.mean().item(), stderr, matvecs=sum(part.matvecs or 0 for part in parts))

"""How far the outputs move on a ball, to first order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.autodiff.linearized import Linearized
from lossgeom.lipschitz.ball import Ball, Norm
from lossgeom.smoothness.exact import all_rows, checked
from lossgeom.smoothness.search import Search

STEPS = 20  # of alternating maximisation
TOLERANCE = 1e-6  # of Lanczos iteration, which is used for many outputs

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """How far the outputs of some examples move to first order, per unit of eps.

    Attributes:
        value: the largest ||J s|| that is known, over ||s|| <= 1 in the norm of the inputs.
        direction: an s that comes near it.
        converged: whether the value is the maximum, which is not known for l_inf.
    """

    value: Float[Tensor, " B"]
    direction: Float[Tensor, "B D"]
    converged: Bool[Tensor, " B"]


def first_order(point: Linearized, norm: Norm, starts: Float[Tensor, "D k"]) -> FirstOrder:
    r"""Maximise ||J s|| by alternating maximisation; in l2, take the value from the spectral norm.

    Because :math:`\|J s\|^2` is convex, :math:`s \leftarrow \mathrm{argmax}_{\|s'\| \le 1}
    \langle J^\top J s, s' \rangle` never lowers it.
    """
    search = Search(tol=TOLERANCE)
    method = "exact" if point.constant else search.choice(point)
    push, pull = _products(point, method == "exact")
    ball = Ball(1.0, norm)
    S = ball.steepest(starts.T.to(point.outputs)).expand(len(point), -1, -1)
    for _ in range(STEPS):
        S = ball.steepest(pull(push(S)))
    values, best = push(S).norm(dim=2).max(1)
    direction = S[torch.arange(len(S)), best]
    if norm == "linf":
        return FirstOrder(values, direction, torch.zeros_like(best, dtype=torch.bool))
    spectral = search.of(point, method)
    return FirstOrder(spectral.values, direction, spectral.converged)


def _products(point: Linearized, with_rows: bool) -> tuple[Product, Product]:
    """J s and J^T u of every example, for (B, k, D) and (B, k, C), from all rows or without."""
    if with_rows:
        J = checked(all_rows(point))
        return (lambda S: S @ J.mT), (lambda U: U @ J)
    jacobian = BatchJacobian(point.outputs, point.leaf)

    def push(S: Tensor) -> Tensor:
        columns = S.transpose(0, 1).reshape(-1, *point.leaf.shape)
        return torch.stack([jacobian.push(column) for column in columns], dim=1)

    def pull(U: Tensor) -> Tensor:
        return torch.stack([point.pull(u) for u in U.unbind(1)], dim=1)

    return push, pull

"""The curvature that Gauss-Newton matrices leave out: of single examples, and downwards."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch
from lossgeom.curvature import Hessian
from lossgeom.linalg import plain_arithmetic, top_eigenpairs
from lossgeom.problem import Problem
from lossgeom.problem.network import check_differentiable_again
from lossgeom.trust.trial import DerivativeError

TOL = 0.02  # of the most negative eigenvalue


def lowest_curvature(problem: Problem) -> float | None:
    """Find the smallest eigenvalue of the Hessian; ``None`` where that is not known."""
    try:
        found = top_eigenpairs(Hessian(problem), which="smallest", tol=TOL, verify=True)
    except (DerivativeError, RuntimeError):
        return None
    lowest = float(found.values[0])
    return lowest if bool(found.converged[0]) or lowest < 0 else None


def residual_along(problem: Problem, v: Float[Tensor, " P"]) -> Float[Tensor, " n"] | None:
    r"""Take the residual part of each example along v, in its own terms.

    .. math:: v^\top (\nabla^2 \ell_i - H_i) v = \nabla_f \ell_i \cdot f_i''[v, v]

    with the second derivative of the outputs along v, by reverse mode in one number. ``None`` where
    the model has no such derivative.
    """
    try:
        with plain_arithmetic(problem.theta.device):
            parts = problem.over_batches(lambda batch: _of_batch(problem, batch, v))
    except (RuntimeError, NotImplementedError, ValueError):
        return None
    found = torch.cat([part for part, _ in parts]).double()
    return found * len(found) / sum(count for _, count in parts)


def _of_batch(problem: Problem, batch: Batch, v: Tensor) -> tuple[Tensor, float]:
    t = torch.zeros((), dtype=v.dtype, device=v.device, requires_grad=True)
    outputs = problem.outputs(problem.theta + t * v, batch)
    loss = LossAtOutputs.of(problem, outputs, batch)
    residual = loss.residual.detach()
    u = torch.zeros_like(residual, requires_grad=True)
    first = pulled(outputs, t, u, create_graph=True)
    second = pulled(first, t, torch.ones_like(t), create_graph=True)
    check_differentiable_again(first)
    check_differentiable_again(second)
    bend = pulled(second, u, torch.ones_like(t))
    return (residual * bend).reshape(len(residual), -1).sum(1).detach(), loss.count
